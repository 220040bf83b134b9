"""Failures of MLflow and of the databases behind it: the cause in one line, and the command that helps."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy import NullPool, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from app.addresses import sqlite_file, without_password
from app.errors import ModelUnavailable

CONNECT_SECONDS = 5
LOCK_SECONDS = 20
"""To wait for a SQLite file that another process has locked; MLflow itself waits 5 to 20 seconds."""
CAUSES = {
    r"database is locked": "{where} is locked by another process, and was not free in time. End that process, which "
    "`fuser {file}` lists, or run the command again later.",
    r"malformed|not a database|disk I/O error": "{where} is damaged ({reason}). Restore a copy, or begin a new one: "
    "`mv {file} {file}.damaged && make repro`.",
    r"readonly database|unable to open database|Permission denied": "{where} cannot be opened or written by this user. "
    'Make its folder yours: `sudo chown -R "$USER" {folder}`.',
    r"(database or disk is|No space left|DiskFull)": "no space is left for {where}: free some, and run it again.",
    r"No module named '(\w+)'": "the database driver {0} of {where} is not installed: PostgreSQL's is that of "
    "`postgresql+psycopg://user@host/database`.",
    r"(?:status code|error code|HTTP status) (401|403)|(Unauthorized|Permission denied for)": "{where} refuses the "
    "login: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.",
    r"failed with error code (\d+)": "{where} answers with HTTP {0}, so it is not an MLflow server, or its log has the "
    "reason: check MLFLOW_TRACKING_URI by `curl {where}/version`.",
    r"experiment '?(\w+)'? must be in the 'active' state": "experiment {0} of {where} is deleted: "
    "`MLFLOW_TRACKING_URI={where} mlflow experiments restore --experiment-id {0}` restores it.",
    r"run '?(\w+)'? must be in the 'active' state": "run {0} of {where} is deleted: "
    "`MLFLOW_TRACKING_URI={where} mlflow runs restore --run-id {0}` restores it.",
    r"API request|Max retries|[Cc]onnection|timed? ?out": "MLflow is unreachable at {where} ({reason}). Start it, "
    "correct MLFLOW_TRACKING_URI, or run without a server: `env -u MLFLOW_TRACKING_URI make repro`.",
}
"""A sign in the text of an exception, and the message that stands for it; {0} is the first group of the sign."""


@contextmanager
def explaining(uri: str) -> Iterator[None]:
    """Raise ModelUnavailable, with its cause and the command that helps, for a failure of the store in the block."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, ImportError, OSError) as err:
        raise explained(uri, err) from err


def check_store(uri: str) -> None:
    """Open the store at an address once, for some seconds at most; raise its error, in the words of its library.

    MLflow itself repeats a failed connection to a database for minutes.
    """
    try:
        make_url(uri if "://" in uri else f"file://{uri}")
    except ValueError as err:
        raise OSError(f"not an address: {err}") from err
    if uri.startswith(("http://", "https://")):
        creds = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
        options = {"max_retries": 0, "timeout": CONNECT_SECONDS, "raise_on_status": False}
        http_request(creds, "/health", "GET", **options)  # type: ignore[no-untyped-call]
    elif uri.startswith("sqlite"):
        if "%" in mlflow.__file__:  # a character of the configuration by which MLflow makes its tables
            folder = Path(mlflow.__file__).parent
            raise ModelUnavailable(f"{folder}: MLflow cannot make its tables from a path with %. Rename the folder.")
        _check_file(sqlite_file(uri))
    elif uri.startswith(("postgresql", "mysql")):
        seconds = {"connect_timeout": CONNECT_SECONDS}
        create_engine(uri, connect_args=seconds, poolclass=NullPool).connect().close()


def _check_file(file: Path | None) -> None:
    """Compare a SQLite file with its header: pointer, other content, cut off, not writable; wait until it is free."""
    if file is None or not file.exists() or not file.stat().st_size:
        return
    with file.open("rb") as content:
        header = content.read(100)
    if header.startswith(b"version https://git-lfs"):
        raise ModelUnavailable(f"{file} is a Git LFS pointer, not the database: `git lfs pull` downloads it.")
    if not header.startswith(b"SQLite format 3\0"):
        raise OSError("file is not a database")
    pages, page = int.from_bytes(header[28:32], "big"), int.from_bytes(header[16:18], "big")
    size, wanted = file.stat().st_size, pages * (65536 if page == 1 else page)
    if header[18] == 1 and header[24:28] == header[92:96] and size < wanted:  # not in WAL mode, and up to date
        raise OSError(f"malformed: cut off, {size} of {wanted} bytes")
    if not os.access(file, os.W_OK) or not os.access(file.resolve().parent, os.W_OK):
        raise OSError("readonly database")
    with closing(sqlite3.connect(file, timeout=LOCK_SECONDS)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def explained(uri: str, err: Exception) -> ModelUnavailable:
    """Return an error with the cause of a failure of MLflow, in one line, and the command that helps."""
    text, where, file = str(err) or repr(err), without_password(uri), sqlite_file(uri) or Path()
    schema = re.search(r"found version (\w+)", text)
    if schema:
        return ModelUnavailable(_other_version(where, schema[1]))
    deleted = re.search(r"deleted experiment '(.+?)'", text)  # MLflow reports its name, not its number
    if deleted:
        experiment = MlflowClient(uri).get_experiment_by_name(deleted[1])
        text = f"experiment {experiment.experiment_id if experiment else deleted[1]} must be in the 'active' state"
    reason = without_password(re.sub(r"^\(.*?\) ", "", text.strip().splitlines()[0])[:200].rstrip(". "))
    words = {"where": where, "file": shlex.quote(str(file)), "folder": shlex.quote(str(file.parent)), "reason": reason}
    for sign, cause in CAUSES.items():
        match = re.search(sign, text)
        if match:
            return ModelUnavailable(cause.format(*filter(None, match.groups()), **words))
    return ModelUnavailable(f"MLflow at {where} failed: {reason}.")


def _other_version(where: str, revision: str) -> str:
    what = f"the tables of {where} are those of another MLflow (revision {revision}) than {mlflow.__version__}"
    if revision == "None" or any(Path(mlflow.__file__).parent.glob(f"store/db_migrations/versions/{revision}_*.py")):
        return f"{what}, an earlier one. Back them up, then `mlflow db upgrade {where}`."
    way = "Use the checkout that wrote them, or another store: `MLFLOW_TRACKING_URI=sqlite:///other.db make repro`."
    return f"{what}, a later one. {way}"


def recognised(err: Exception) -> ModelUnavailable | None:
    """Return what an exception of MLflow, or of its database, stands for; None for any other exception."""
    if not isinstance(err, (MlflowException, SQLAlchemyError)):
        return None
    return explained(mlflow.get_tracking_uri(), err)
