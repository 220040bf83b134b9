"""The journal's file or tables are removed, moved or replaced while the writer runs."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from fastapi import HTTPException
from sqlalchemy import text

from app.journal import writer
from app.journal.database import connect, prepare
from app.journal.tables import SCHEMA
from tests.support.journal import Run, Running, written
from tests.support.processes import wait_for
from tests.support.servers.postgres import Postgres

SIDECARS = ("-wal", "-shm")
RAISED = f"UPDATE journal_schema SET version = {SCHEMA + 1}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of a journal in a folder of its own."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "journal.db"


def remove(file: Path, *ends: str) -> None:
    """Remove a database, or those of its files that end like this."""
    for end in ends or ("", *SIDECARS):
        Path(f"{file}{end}").unlink(missing_ok=True)  # the writer may be faster


def rows_of(file: Path) -> set[str]:
    """Return the ids in a sound database, without the sidecar files of another one."""
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return {name for (name,) in connection.execute("SELECT id FROM predictions")}


def execute(url: str, statement: str) -> None:
    """Execute a statement in the journal's database."""
    engine = connect(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def assert_replaced(running: Running, url: str, lost: int) -> None:
    """Assert that what is written from now on is there, and what was before is counted."""
    wait_for("it is counted", lambda: running.metric("replaced_total") == 1)
    running.wait_until_up(True)
    new = running.write(3)
    assert new <= written(url) and running.metric("lost_total") == lost
    assert not running.report(new.pop()).unknown


def remove_database_only(file: Path) -> None:
    """Remove a database, but not its sidecar files."""
    remove(file, "")


def empty(file: Path) -> None:
    """Empty a database in place, as logrotate's `copytruncate` does."""
    os.truncate(file, 0)


@pytest.mark.parametrize("damage", [remove, remove_database_only, empty])
def test_a_lost_file_is_made_again(damage: Callable[[Path], None], file: Path, run_journal: Run) -> None:
    running = run_journal(f"sqlite:///{file}")
    old = running.write(500)
    damage(file)  # an idle writer notices as well
    assert_replaced(running, running.url, lost=500)
    running.journal.close()
    assert not old & rows_of(file)


def remove_sidecars(file: Path) -> None:
    """Remove the sidecar files of a database."""
    remove(file, *SIDECARS)


def vacuum(file: Path) -> None:
    """Write all pages of a database again, in the same file."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("VACUUM")


@pytest.mark.parametrize("change", [remove_sidecars, vacuum])
def test_the_same_file_loses_nothing(change: Callable[[Path], None], file: Path, run_journal: Run) -> None:
    running = run_journal(f"sqlite:///{file}")
    old = running.write(500)
    change(file)
    new = running.write(3)
    assert old | new == written(running.url) == rows_of(file) and running.metric("replaced_total") == 0


def test_a_rotated_file_is_complete(file: Path, run_journal: Run) -> None:
    running = run_journal(f"sqlite:///{file}")
    old = running.write(5)
    file.rename(f"{file}.1")
    assert_replaced(running, running.url, lost=5)
    assert rows_of(Path(f"{file}.1")) == old and not old & written(running.url)


def test_a_file_restored_from_a_backup_is_followed(file: Path, run_journal: Run) -> None:
    running = run_journal(f"sqlite:///{file}")
    old = running.write(5)
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(f"{file}.backup")) as backup:
        source.backup(backup)
    newer = running.write(2)
    os.replace(f"{file}.backup", file)
    assert_replaced(running, running.url, lost=7)
    assert old <= written(running.url) and not newer & written(running.url)


def test_a_link_to_another_file_is_followed(file: Path, run_journal: Run) -> None:
    link, other = file.with_name("link.db"), file.with_name("other.db")
    link.symlink_to(file)
    running = run_journal(f"sqlite:///{link}")
    old = running.write(5)
    (file.parent / "new").symlink_to(other)
    (file.parent / "new").rename(link)
    assert_replaced(running, f"sqlite:///{other}", lost=5)
    assert written(f"sqlite:///{file}") == old


@pytest.mark.parametrize("obstacle", ["folder", "no database", "no folder", "another schema"])
def test_what_is_not_a_journal_is_waited_out(
    obstacle: str, file: Path, run_journal: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "RETRY_SECONDS", 0.1)
    running = run_journal(f"sqlite:///{file}")
    running.write(5)
    other = file.parent.with_name("other") / file.name
    if obstacle == "folder":
        other.mkdir(parents=True)
    elif obstacle == "no database":
        other.parent.mkdir()
        other.write_bytes(b"no database" * 1000)
    elif obstacle == "another schema":
        other.parent.mkdir()
        prepare(engine := connect(f"sqlite:///{other}"))
        engine.dispose()
        execute(f"sqlite:///{other}", "UPDATE journal_schema SET version = 5")
    file.parent.rename(file.parent.with_name("old"))  # where there is no folder, no file is made
    if other.exists():
        other.parent.rename(file.parent)
    waiting = running.record(3)
    running.wait_until_up(False)
    wait_for("it is logged", lambda: str(file) in caplog.text)
    assert running.metric("written_total") == 5
    with pytest.raises(HTTPException) as refusal:
        running.report(min(waiting))
    assert refusal.value.status_code == 503
    if obstacle == "another schema":
        assert not rows_of(file)
    if file.parent.exists():
        file.parent.rename(other.parent)
    file.parent.mkdir()
    assert_replaced(running, running.url, lost=5)
    assert waiting <= written(running.url)


def admin(postgres: Postgres, statement: str) -> None:
    """Execute a statement outside the journal's database."""
    with psycopg.connect(host="127.0.0.1", port=postgres.port, user="postgres", autocommit=True) as connection:
        connection.execute(statement.encode())


@pytest.mark.long
@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE blocks CASCADE",
        "DROP TABLE blocks, outcomes, journal_schema CASCADE",
        "TRUNCATE blocks, outcomes, journal_schema",
    ],
)
def test_dropped_tables_are_created(statement: str, postgres: Postgres, run_journal: Run) -> None:
    running = run_journal(postgres.database())
    running.write(5)
    execute(running.url, statement)
    assert_replaced(running, running.url, lost=5)


@pytest.mark.long
def test_a_dropped_database_is_waited_for(postgres: Postgres, run_journal: Run) -> None:
    running = run_journal(postgres.database())
    running.write(5)
    name = running.url.rpartition("/")[2]
    admin(postgres, f"DROP DATABASE {name} WITH (FORCE)")
    waiting = running.record(3)
    running.wait_until_up(False)
    admin(postgres, f"CREATE DATABASE {name}")
    assert_replaced(running, running.url, lost=5)
    assert waiting <= written(running.url)


@pytest.mark.long
def test_a_raised_schema_is_not_written(postgres: Postgres, run_journal: Run) -> None:
    running = run_journal(postgres.database())
    running.write(5)
    execute(running.url, RAISED)
    running.wait_until_up(False)
    running.record(3)
    execute(running.url, f"UPDATE journal_schema SET version = {SCHEMA}")
    wait_for("the queue is written", lambda: running.metric("written_total") == 8)
    assert running.metric("replaced_total") == 0


@pytest.mark.long
def test_a_former_primary_is_given_up(postgres: Postgres, run_journal: Run) -> None:
    running = run_journal(postgres.database())
    running.write(5)
    name = running.url.rpartition("/")[2]
    admin(postgres, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    running.journal.engine.dispose()  # the next connection is to a server that does not write any more
    waiting = running.record(3)
    running.wait_until_up(False)
    admin(postgres, f"ALTER DATABASE {name} RESET default_transaction_read_only")
    wait_for("the queue is written", lambda: waiting <= written(running.url))


@contextmanager
def hanging(url: str) -> Iterator[None]:
    """Stop the processes of the server that hold connections to a database."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    engine = connect(url)
    with engine.connect() as connection:
        servers = connection.scalars(text(query)).all()
    engine.dispose()
    for pid in servers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in servers:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.long
def test_a_server_that_hangs_counts_as_down(
    postgres: Postgres, run_journal: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "HUNG_SECONDS", 0.5)
    running = run_journal(postgres.database())
    running.write(5)
    with hanging(running.url):
        running.record(900)
        wait_for("it counts as down", lambda: running.record(200) and running.metric("up") == 0)
        assert running.metric("queue_depth") == 900 and running.metric("dropped_total") >= 200
    wait_for("the queue is written", lambda: running.metric("written_total") == 905)
