"""Repair of a local MLflow store that was moved or copied; its database has absolute artifact paths."""

from __future__ import annotations

import shlex
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from app.errors import ModelUnavailable
from app.registry import failures
from app.registry.address import sqlite_file

ARTIFACTS = "mlruns"
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
    database = _database(uri)
    if database is None:
        return None
    with closing(sqlite3.connect(database, timeout=failures.LOCK_SECONDS, isolation_level=None)) as connection:
        elsewhere = _elsewhere(connection, database.with_name(ARTIFACTS))
        for root, experiments in elsewhere.items():
            _require_artifacts(connection, database, _local(root), experiments)
        if elsewhere:
            _rewrite(connection, list(elsewhere), database.with_name(ARTIFACTS))
    if not elsewhere:
        return None
    origins = " and ".join(str(_local(root).parent) for root in elsewhere)
    return f"{database.name} was moved or copied from {origins}: its artifacts are now those in {database.parent}."


def _database(uri: str) -> Path | None:
    path = (sqlite_file(uri) or Path()).resolve()
    return path if path.is_file() and path.is_relative_to(Path.cwd()) else None


def _local(location: str) -> Path:
    return Path(unquote(urlsplit(location).path) if location.startswith("file:") else location)


def _elsewhere(connection: sqlite3.Connection, beside: Path) -> dict[str, list[str]]:
    """Return, by recorded artifact root, the experiments whose default folder is in another working directory."""
    found: dict[str, list[str]] = defaultdict(list)
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
        return found
    for experiment, location in connection.execute("SELECT experiment_id, artifact_location FROM experiments"):
        root, _, last = (location or "").rpartition("/")
        path = _local(root)
        if last == str(experiment) and path.is_absolute() and path.name == ARTIFACTS and path.resolve() != beside:
            found[root].append(last)
    return found


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


def _rewrite(connection: sqlite3.Connection, roots: list[str], beside: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for table, column in COLUMNS:
        for root in roots:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (f"{beside}/", len(root) + 2, len(root) + 1, f"{root}/"),
            )
    connection.execute("COMMIT")
