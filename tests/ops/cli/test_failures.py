"""MLflow's stores when they fail: each cause is one line, in limited time, with the command that helps."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from app.errors import ModelUnavailable
from ops.registry import commands
from ops.registry.commands import patiently
from stages.tracking import mlflow_runs
from tests.conftest import ROOT
from tests.support.processes import free_port, running, started, wait_for
from tests.support.promotion import Bench
from tests.support.servers.postgres import Postgres

NAME = "flight-delay"
LIMIT_SECONDS = 10


def database(bench: Bench) -> Path:
    """Return the SQLite file of a registry."""
    return Path(bench.uri.removeprefix("sqlite:///"))


def change(bench: Bench, statement: str) -> None:
    """Change the file by SQL."""
    with sqlite3.connect(database(bench)) as connection:
        connection.execute(statement)
    connection.close()


def delete_experiment(bench: Bench) -> None:
    """Delete the experiment as MLflow's UI does."""
    bench.client.delete_experiment(mlflow_runs.experiment_id())


CAUSES: dict[str, tuple[Callable[[Bench], object], str]] = {
    "experiment deleted": (delete_experiment, "is deleted: `MLFLOW_TRACKING_URI={uri} mlflow experiments restore"),
    "earlier MLflow": (
        lambda b: change(b, "UPDATE alembic_version SET version_num = '451aebb31d03'"),
        "an earlier one.*`mlflow db upgrade {uri}`",
    ),
    "later MLflow": (
        lambda b: change(b, "UPDATE alembic_version SET version_num = 'ffffffffffff'"),
        "a later one. Use the checkout",
    ),
    "cut off": (lambda b: database(b).write_bytes(database(b).read_bytes()[:200_000]), "cut off, 200000 of.*`mv "),
    "other content": (lambda b: database(b).write_bytes(b"<html>" * 99), "is damaged .file is not a database"),
    "Git LFS pointer": (
        lambda b: database(b).write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
        "is a Git LFS pointer.*`git lfs pull`",
    ),
    "overwritten inside": (
        lambda b: database(b).write_bytes(database(b).read_bytes()[:100] + b"\xff" * 900_000),
        "is damaged",
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_unusable_store_has_its_own_error(bench: Bench, cause: str) -> None:
    damage, text = CAUSES[cause]
    damage(bench)
    began = time.monotonic()
    with pytest.raises(ModelUnavailable, match=text.format(uri=bench.uri)) as found:
        patiently(commands.require)
    assert "\n" not in str(found.value) and time.monotonic() - began < LIMIT_SECONDS


@pytest.mark.long
def test_named_command_restores_the_experiment(bench: Bench) -> None:
    delete_experiment(bench)
    with pytest.raises(ModelUnavailable) as found:
        patiently(commands.require)
    command = str(found.value).split("`")[1].removeprefix(f"MLFLOW_TRACKING_URI={bench.uri} ").split()
    subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
    assert commands.find_version(bench.client, NAME, "1", "", "").version == 1


def run(bench: Bench, line: str, seconds: float = 60) -> tuple[int, str]:
    """Run a command in a process of its own; return its exit code and all that it printed."""
    command = [sys.executable, "-m", "ops.cli", *line.split()]
    with started(command, bench.path, MLFLOW_TRACKING_URI=bench.uri, PYTHONPATH=str(ROOT)) as process:
        code = process.wait(seconds)
        return code, process.output()


@pytest.mark.long
def test_locked_file_is_waited_for(bench: Bench) -> None:
    with sqlite3.connect(database(bench), isolation_level=None) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        code, output = run(bench, "model history", 90)
        assert code == 1 and output.count("\n") == 1 and "is locked by another process" in output, output
        assert "`fuser " in output and time.monotonic() - began > 15
        command = [sys.executable, "-m", "ops.cli", "model", "promote", "--version", bench.versions["good"]]
        with started(command, bench.path, MLFLOW_TRACKING_URI=bench.uri, PYTHONPATH=str(ROOT)) as promotion:
            opened = psutil.Process(promotion.pid).open_files
            wait_for("the file is opened", lambda: str(database(bench)) in {file.path for file in opened()})
            writer.execute("ROLLBACK")
            assert promotion.wait(120) == 0, promotion.output()
    writer.close()


def unusable(uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the error of a store, which has to come within the limit."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    began = time.monotonic()
    with pytest.raises(ModelUnavailable) as found:
        mlflow_runs.connect()
    assert time.monotonic() - began < LIMIT_SECONDS and "\n" not in str(found.value)
    return str(found.value)


def test_postgresql_that_is_down(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    address = postgres.database()
    postgres.stop()
    try:
        text = unusable(address, monkeypatch)
    finally:
        postgres.start()
    assert "Connection refused" in text and "MLflow is unreachable at postgresql+psycopg://127.0.0.1" in text


def test_postgresql_without_database_or_driver(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    address = postgres.database()
    assert 'database "none" does not exist' in unusable(f"{address.rpartition('/')[0]}/none", monkeypatch)
    text = unusable(address.replace("+psycopg:", "+pg8000:"), monkeypatch)
    assert "pg8000" in text and "`postgresql+psycopg://" in text


@pytest.mark.parametrize("listens", [False, pytest.param(True, marks=pytest.mark.long)], ids=["refuses", "is silent"])
def test_server_that_does_not_answer(listens: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if not listens:
            listener.close()
        text = unusable(address, monkeypatch)
    assert "MLflow is unreachable" in text and "env -u MLFLOW_TRACKING_URI make repro" in text


def test_server_that_is_not_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with running([sys.executable, "-m", "http.server", address.rpartition(":")[2]], address, tmp_path):
        assert f"{address} answers with HTTP 404, so it is not an MLflow server" in unusable(address, monkeypatch)


@pytest.mark.parametrize(
    "uri", ["sqlite:////proc/none/mlflow.db", "htp://127.0.0.1:5000", "postgresql+psycopg://h:x/d"]
)
def test_impossible_address(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert uri.rpartition("/")[2] in unusable(uri, monkeypatch)
