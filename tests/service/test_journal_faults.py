"""The journal's database fails, and processes are killed, under traffic: what was answered is there, or is counted."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from app.interface import EXAMPLE
from tests.conftest import Postgres
from tests.support.journal import written
from tests.support.processes import started, wait_for
from tests.support.servers.service import Service, Start, Traffic

pytestmark = pytest.mark.long


def assert_kept(service: Service, url: str, ids: set[str]) -> None:
    """Assert that these predictions are in the journal."""
    wait_for("all written", lambda: service.metric("journal_queue_depth") == 0 and service.metric("journal_up") == 1)
    assert service.metric("journal_dropped_total") == 0 and ids <= written(url)
    assert service.metric("journal_written_total") == len(written(url))


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a SQLite database, as another process would."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def stopped(postgres: Postgres) -> Iterator[None]:
    """Stop PostgreSQL for a while."""
    postgres.stop()
    try:
        yield
    finally:
        postgres.start()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_database_is_gone_for_a_while(
    database: str, start: Start, image: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if database == "sqlite":
        url = f"sqlite:///{tmp_path}/journal.db"
        outage = locked(tmp_path / "journal.db")
    else:
        postgres = request.getfixturevalue("postgres")
        url = postgres.database()
        outage = stopped(postgres)
    service = start(baked_model=image, journal_url=url, journal_queue=200_000)  # room for all of the outage
    with Traffic(service.base) as traffic:
        wait_for("the journal is written", lambda: service.metric("journal_written_total"))
        with outage:
            quick = traffic.slowest
            traffic.slowest = 0.0
            before = service.metric("journal_written_total")
            wait_for("the database is missed", lambda: service.metric("journal_up") == 0)
            answered = len(traffic.answers)
            wait_for("requests are answered all the same", lambda: len(traffic.answers) > answered + 200)
            assert service.metric("journal_up") == 0 and service.metric("journal_queue_depth") > 0
            assert service.metric("journal_written_total") - before <= 1000  # one transaction was under way
            assert traffic.slowest < max(1.0, 5 * quick)  # nobody waits for the database
        wait_for("the journal is written again", lambda: service.metric("journal_up") == 1)
    assert not traffic.failed
    assert_kept(service, url, traffic.ids())


@pytest.mark.parametrize("ends", [("", "-wal", "-shm"), ("-wal", "-shm")], ids=["all files", "sidecar files"])
def test_files_are_removed_under_traffic(ends: tuple[str, ...], start: Start, image: Path, tmp_path: Path) -> None:
    workers = 2
    file = tmp_path / "journal.db"
    url = f"sqlite:///{file}"
    service = start(baked_model=image, journal_url=url, workers=workers, journal_queue=10_000)
    wait_for("all workers run", lambda: service.metric("journal_queue_capacity") == 10_000 * workers)
    wait_for("all have opened the journal", lambda: service.metric("journal_up") == 1)
    with Traffic(service.base) as traffic:
        wait_for("the journal is written", lambda: service.metric("journal_written_total") > 50)
        for end in ends:
            Path(f"{file}{end}").unlink(missing_ok=True)
        before = service.metric("journal_written_total")
        wait_for("the journal is written again", lambda: service.metric("journal_written_total") > before + 200)
        outcome = {"prediction_id": httpx.post(f"{service.base}/predict", json=EXAMPLE).json()["prediction_id"]}
        answer = httpx.post(f"{service.base}/outcomes", json=outcome | {"status": "cancelled"})
        assert answer.status_code == 200
    assert not traffic.failed
    wait_for("all written", lambda: service.metric("journal_queue_depth") == 0 and service.metric("journal_up") == 1)
    kept, lost = written(url), service.metric("journal_lost_total")
    assert outcome["prediction_id"] in kept and service.metric("journal_dropped_total") == 0
    assert len(traffic.ids() - kept) == lost and service.metric("journal_written_total") == len(kept) + lost
    assert (service.metric("journal_replaced_total") > 0) == (lost > 0) == ("" in ends)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT prediction_id FROM outcomes").fetchall() == [tuple(outcome.values())]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB, which only root can make."""
    if os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode and not os.environ.get("CI"):
        pytest.skip("this machine lets nobody mount a file system")
    assert folder.is_mount()
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(start: Start, image: Path, small_disk: Path) -> None:
    url = f"sqlite:///{small_disk}/journal.db"
    service = start(baked_model=image, journal_url=url)
    wait_for("the journal", lambda: service.metric("journal_up") == 1 and (small_disk / "journal.db").exists())
    with (small_disk / "other").open("wb", buffering=0) as other:
        with pytest.raises(OSError):
            while True:
                other.write(b"0" * 4096)
    with Traffic(service.base) as traffic:
        wait_for("the disk is full", lambda: service.metric("journal_up") == 0)
        answered = len(traffic.answers)
        wait_for("requests are answered all the same", lambda: len(traffic.answers) > answered + 50)
        (small_disk / "other").unlink()
        wait_for("there is room again", lambda: service.metric("journal_up") == 1)
    assert not traffic.failed
    assert_kept(service, url, traffic.ids())


HUNDRED_A_MILLISECOND = """
import sys, time
from pathlib import Path
import numpy as np
from app.interface import FEATURE_NAMES
from app.journal.writer import Journal
from app.metrics import Metrics
from app.model import bundles
from app.model.prediction import Predictions, new_ids
from app.model.served import ServedModel
from app.settings import Settings

folder, url = Path(sys.argv[1]), sys.argv[2]
served = ServedModel("m", "7", "production", None, bundles.load(folder / "model.lgb", folder / "manifest.json"))
metrics = Metrics()
journal = Journal(Settings(journal_url=url), metrics.journal)
journal.start()
rows, risks, request = np.ones((100, len(FEATURE_NAMES))), [0.5] * 100, b",".join([b"{}"] * 100)
due = time.time()
while True:
    due += 0.001
    time.sleep(max(0, due - time.time()))
    now = time.time()
    ids = new_ids(now, 100)
    print(now, metrics.registry.get_sample_value("journal_dropped_total"), *ids, flush=True)
    journal.record(Predictions(now, served, ids, rows, risks, (), request))
"""
TURN = 0.5
"""Seconds within which a prediction is on disk: the flush interval, and the writer's turn on a busy machine."""


def test_what_is_lost_after_kill_9(bundle_dir: Path, tmp_path: Path) -> None:
    """At a hundred predictions a millisecond, at most those of the flush interval are missing."""
    url = f"sqlite:///{tmp_path}/journal.db"
    with started([sys.executable, "-c", HUNDRED_A_MILLISECOND, bundle_dir, url]) as process:
        wait_for("two seconds are recorded", lambda: process.output().count("\n") > 2000)
        killed = time.time()
        process.kill()
        process.wait()
        lines = [line.split() for line in process.output().splitlines()]
    recorded = [line for line in lines if len(line) == 102 and len(line[-1]) == 32]
    kept = written(url)
    lost = [float(moment) for moment, _, *ids in recorded for name in ids if name not in kept]
    assert {float(dropped) for _, dropped, *_ in recorded} == {0} and len(recorded) > 2000
    assert kept <= {name for _, _, *ids in lines for name in ids}
    print(f"{len(lost)} of {100 * len(recorded)} are lost, recorded since {killed - min(lost, default=killed):.3f} s")
    assert all(moment > killed - TURN for moment in lost)


def test_what_waits_is_written_when_the_service_stops(start: Start, image: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/journal.db"
    service = start(baked_model=image, journal_url=url)
    answers = [httpx.post(f"{service.base}/predict", json=EXAMPLE).json() for _ in range(20)]
    os.kill(service.pid, signal.SIGTERM)
    service.process.wait(60)
    assert {answer["prediction_id"] for answer in answers} == written(url)
