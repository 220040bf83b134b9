"""`on-time stack backup` and `on-time stack restore`: MLflow's database and the journal, by PostgreSQL's own tools.

The tools run in Compose's `postgres` container, or on this machine when PGHOST is set.
"""

import hashlib
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from app.errors import OnTimeError
from ops.release.docker import PROJECT, engine_errors, service

FOLDER = Path("backup")
DATABASES = ("mlflow", "journal")
SUMS = "SHA256SUMS"


class BackupFailed(OnTimeError):
    """A backup that was not made, or must not be restored."""


def _tool(*command: str, stdin: bytes | None = None) -> bytes:
    """Run a tool of PostgreSQL in its container; raise BackupFailed with the end of its output."""
    if not os.environ.get("PGHOST"):
        with engine_errors():
            found = service(PROJECT, "postgres")
        if found is None:
            raise BackupFailed("no postgres container of ops/stack/compose runs here, and PGHOST names no PostgreSQL.")
        command = ("docker", "exec", "--interactive", "--env=PGUSER=postgres", found.id, *command)  # binary both ways
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no output"]
        raise BackupFailed(f"{command[-1]}: {lines[-1]}")
    return done.stdout


def save_databases(folder: Path) -> Path:
    """Write a dump of each database and their SHA-256 to a new folder, complete or not there at all."""
    target = folder / datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    scratch = target.with_suffix(".part")
    scratch.mkdir(parents=True)
    scratch.chmod(0o700)
    sums = []
    for name in DATABASES:
        dump = _tool("pg_dump", "--format=custom", "--no-password", "--dbname", name)
        (scratch / f"{name}.dump").write_bytes(dump)
        sums.append(f"{hashlib.sha256(dump).hexdigest()}  {name}.dump\n")
    (scratch / SUMS).write_text("".join(sums), encoding="utf-8")
    scratch.rename(target)
    return target


def restore_databases(folder: Path) -> None:
    """Put the dumps in place of the present contents, each database in one transaction; refuse damaged ones first."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, name in (line.split() for line in lines)}
        dumps = {name: (folder / f"{name}.dump").read_bytes() for name in DATABASES}
    except (OSError, ValueError) as err:
        raise BackupFailed(f"{folder} is not a complete backup: {err}. `ls {FOLDER}` shows which there are.") from err
    for name, dump in dumps.items():
        if hashlib.sha256(dump).hexdigest() != sums.get(f"{name}.dump"):
            damaged = f"{folder}/{name}.dump is damaged: its SHA-256 is not the one in {SUMS}"
            raise BackupFailed(f"{damaged}. Nothing was changed.")
    for name, dump in dumps.items():
        options = ["--clean", "--if-exists", "--single-transaction", "--exit-on-error", "--no-password"]
        _tool("pg_restore", *options, "--dbname", name, stdin=dump)
