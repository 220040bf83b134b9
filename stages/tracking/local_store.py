"""A local MLflow store that was moved or copied with its checkout: its database records absolute artifact paths."""

from __future__ import annotations

import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from app.addresses import sqlite_file
from app.errors import ModelUnavailable

ARTIFACTS = "mlruns"
LOCK_SECONDS = 20
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow(uri: str) -> str | None:
    """Point a local MLflow database to the artifacts next to it; return a message if it was changed.

    Applies to SQLite files under the working directory with artifacts in MLflow's default folder. Raises
    ModelUnavailable if the artifacts are missing next to the database, so that no other checkout is written to.
    """
    database = (sqlite_file(uri) or Path()).resolve()
    if not database.is_file() or not database.is_relative_to(Path.cwd()):
        return None
    beside = database.with_name(ARTIFACTS)
    with closing(sqlite3.connect(database, timeout=LOCK_SECONDS, isolation_level=None)) as connection:
        roots = _roots_elsewhere(connection, beside)
        for root, experiments in roots.items():
            _require_artifacts(connection, database, _local(root), experiments)
        if not roots:
            return None
        connection.execute("BEGIN IMMEDIATE")
        for table, column in COLUMNS:
            for root in roots:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (f"{beside}/", len(root) + 2, len(root) + 1, f"{root}/"),
                )
        connection.execute("COMMIT")
    origins = " and ".join(str(_local(root).parent) for root in roots)
    return f"{database.name} was moved or copied from {origins}: its artifacts are now those in {database.parent}."


def _local(location: str) -> Path:
    return Path(unquote(urlsplit(location).path) if location.startswith("file:") else location)


def _roots_elsewhere(connection: sqlite3.Connection, beside: Path) -> dict[str, list[str]]:
    """Return, by recorded artifact root, the experiments whose default folder is in another working directory."""
    roots: dict[str, list[str]] = {}
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
        return roots
    for experiment, location in connection.execute("SELECT experiment_id, artifact_location FROM experiments"):
        root, _, last = (location or "").rpartition("/")
        path = _local(root)
        if last == str(experiment) and path.is_absolute() and path.name == ARTIFACTS and path.resolve() != beside:
            roots.setdefault(root, []).append(last)
    return roots


def _require_artifacts(connection: sqlite3.Connection, database: Path, old: Path, experiments: list[str]) -> None:
    beside = database.with_name(ARTIFACTS)
    if any((beside / experiment).is_dir() for experiment in experiments):
        return
    if any((old / experiment).is_dir() for experiment in experiments):
        command = f"cp -a {shlex.quote(str(old))} {shlex.quote(str(database.parent))}"
        raise ModelUnavailable(f"the artifacts of {database} are in another folder, {old}; `{command}` copies them.")
    if connection.execute("SELECT 1 FROM logged_models").fetchone():
        raise ModelUnavailable(
            f"the artifacts of {database} were in {old}, which does not exist; move that folder to {beside}, "
            f"or start without them: `rm {shlex.quote(str(database))}`."
        )
