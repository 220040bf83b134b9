"""The journal's file or tables are removed, moved, replaced or restored while the writer runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from fastapi import HTTPException
from sqlalchemy import text

from app.api.outcomes import record
from app.interface import Outcome
from app.journal import writer
from app.journal.database import connect, prepare
from tests.conftest import Postgres
from tests.support.journal import Running, written
from tests.support.processes import wait_for

SIDECARS = ("-wal", "-shm")
Run = Callable[[str], Running]


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
    """Return the ids in a database, without the sidecar files of another one."""
    with sqlite3.connect(file) as connection:
        found = {name for (name,) in connection.execute("SELECT id FROM predictions")}
    connection.close()
    return found


def execute(url: str, *statements: str) -> None:
    """Execute statements in the journal's database."""
    engine = connect(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def assert_replaced(running: Running, url: str, lost: int, times: int = 1) -> None:
    """Assert that what is written from now on is there, and what was before is counted."""
    new = running.write(3)
    assert new <= written(url) and running.metric("up") == 1
    assert running.metric("replaced_total") == times and running.metric("lost_total") == lost
    name = new.pop()
    assert not asyncio.run(record(running.journal, [Outcome(prediction_id=name, delay_minutes=3)])).unknown


def test_a_removed_file_is_made_again(file: Path, run_journal: Run) -> None:
    running = run_journal(f"sqlite:///{file}")
    running.write(5)
    remove(file)
    assert_replaced(running, running.url, lost=5)
    remove(file, "")  # and now without its sidecars
    assert_replaced(running, running.url, lost=5 + 3, times=2)


def test_a_rotated_file_is_complete_and_another_one_is_written(file: Path, run_journal: Run) -> None:
    running = run_journal(f"sqlite:///{file}")
    old = running.write(5)
    file.rename(f"{file}.1")
    assert_replaced(running, running.url, lost=5)
    assert rows_of(Path(f"{file}.1")) == old and not old & written(running.url)


def test_a_file_restored_from_a_backup_is_followed(file: Path, run_journal: Run) -> None:
    running = run_journal(f"sqlite:///{file}")
    old = running.write(5)
    with sqlite3.connect(file) as source, sqlite3.connect(f"{file}.backup") as backup:
        source.backup(backup)
    source.close()
    backup.close()
    newer = running.write(2)
    os.replace(f"{file}.backup", file)
    assert_replaced(running, running.url, lost=7)
    assert old <= written(running.url) and not newer & written(running.url)


def test_removed_sidecar_files_lose_nothing(file: Path, run_journal: Run) -> None:
    running = run_journal(f"sqlite:///{file}")
    old = running.write(5)
    remove(file, *SIDECARS)
    new = running.write(3)
    assert old | new == written(running.url) and running.metric("replaced_total") == 0
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_file_that_is_emptied_in_place_is_made_again(file: Path, run_journal: Run) -> None:
    running = run_journal(f"sqlite:///{file}")
    old = running.write(500)
    os.truncate(file, 0)  # as by logrotate's `copytruncate`
    assert_replaced(running, running.url, lost=500)
    assert not old & written(running.url)
    running.journal.close()
    with sqlite3.connect(file) as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    other.close()


def test_a_file_that_is_vacuumed_is_the_same(file: Path, run_journal: Run) -> None:
    running = run_journal(f"sqlite:///{file}")
    running.write(500)
    with sqlite3.connect(file, isolation_level=None) as other:
        other.execute("DELETE FROM outcomes")
        other.execute("VACUUM")
    other.close()
    running.write(3)
    assert len(written(running.url)) == 503 and running.metric("up") == 1


def test_a_link_that_names_another_file_is_followed(file: Path, run_journal: Run) -> None:
    link, other = file.with_name("link.db"), file.with_name("other.db")
    link.symlink_to(file)
    running = run_journal(f"sqlite:///{link}")
    old = running.write(5)
    (file.parent / "new").symlink_to(other)
    (file.parent / "new").rename(link)
    assert_replaced(running, f"sqlite:///{other}", lost=5)
    assert written(f"sqlite:///{file}") == old


@pytest.mark.parametrize("obstacle", ["folder", "no database", "no folder", "another schema"])
def test_what_cannot_be_a_journal_is_waited_out(
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
        asyncio.run(record(running.journal, [Outcome(prediction_id=min(waiting), delay_minutes=3)]))
    assert refusal.value.status_code == 503
    if obstacle == "another schema":
        assert not rows_of(file)
    if file.parent.exists():
        file.parent.rename(other.parent)
    file.parent.mkdir()
    running.wait_until_up(True)
    assert_replaced(running, running.url, lost=5)
    assert waiting <= written(running.url)


def test_an_idle_journal_notices_as_well(file: Path, run_journal: Run) -> None:
    running = run_journal(f"sqlite:///{file}")
    running.write(5)
    remove(file)
    wait_for("the file is there again", file.exists)
    wait_for("it is counted", lambda: running.metric("replaced_total") == 1)
    assert running.metric("lost_total") == 5 and running.metric("up") == 1


def admin(postgres: Postgres, *statements: str) -> None:
    """Execute statements outside the journal's database."""
    with psycopg.connect(host="127.0.0.1", port=postgres.port, user="postgres", autocommit=True) as connection:
        for statement in statements:
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
    wait_for("it is counted", lambda: running.metric("replaced_total") == 1)
    running.wait_until_up(True)
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
    running.wait_until_up(True)
    assert_replaced(running, running.url, lost=5)
    assert waiting <= written(running.url)


@pytest.mark.long
def test_a_schema_that_is_raised_while_the_service_runs_is_not_written(postgres: Postgres, run_journal: Run) -> None:
    running = run_journal(postgres.database())
    running.write(5)
    execute(running.url, "UPDATE journal_schema SET version = 5")
    running.wait_until_up(False)
    running.record(3)
    execute(running.url, "UPDATE journal_schema SET version = 4")
    running.wait_until_up(True)
    wait_for("the queue is written", lambda: running.metric("written_total") == 8)
    assert running.metric("replaced_total") == 0


@pytest.mark.long
def test_connections_to_a_former_primary_are_given_up(postgres: Postgres, run_journal: Run) -> None:
    running = run_journal(postgres.database())
    running.write(5)
    name = running.url.rpartition("/")[2]
    admin(postgres, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    running.journal.engine.dispose()  # the next connection is to a server that does not write any more
    waiting = running.record(3)
    running.wait_until_up(False)
    admin(postgres, f"ALTER DATABASE {name} RESET default_transaction_read_only")
    running.wait_until_up(True)
    wait_for("the queue is written", lambda: waiting <= written(running.url))


@pytest.mark.long
def test_a_server_that_hangs_counts_as_down_once_predictions_are_dropped(
    postgres: Postgres, run_journal: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "HUNG_SECONDS", 0.5)
    running = run_journal(postgres.database())
    running.write(5)
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    engine = connect(running.url)
    with engine.connect() as connection:
        servers = connection.scalars(text(query)).all()
    engine.dispose()
    for pid in servers:
        os.kill(pid, signal.SIGSTOP)
    try:
        running.record(900)
        wait_for("it counts as down", lambda: running.record(200) and running.metric("up") == 0)
        assert running.metric("queue_depth") == 900 and running.metric("dropped_total") >= 200
    finally:
        for pid in servers:
            os.kill(pid, signal.SIGCONT)
    running.wait_until_up(True)
    wait_for("the queue is written", lambda: running.metric("written_total") == 905)
