"""`on-time doctor`: what is installed, what is missing with the command that helps, and the exit code."""

from __future__ import annotations

import ctypes
import http.server
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ops.stack import doctor, reach
from tests.conftest import ROOT
from tests.support.processes import free_port

REQUIRED = {"Python 3.11", "OpenMP", "git", "make", "checkout", "disk", "memory", "variables"}
Programs = Callable[..., Path]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Return a function that leaves only these programs on the PATH, and links or scripts in their folder."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def leave(*names: str, **scripts: str) -> Path:
        for name in names:
            (folder / name).symlink_to(shutil.which(name) or pytest.fail(f"{name} is missing"))
        for name, text in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.delenv("PYTHON", raising=False)
        return folder

    return leave


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with nothing of a checkout but the size of the data."""
    shutil.copy(ROOT / "data.dvc", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this checkout."""
    env = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | environment
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def test_a_machine_that_can_train_gets_0_and_every_item_says_what_it_is_for() -> None:
    done = run(sys.executable, "-m", "ops.cli", "doctor", "--json")
    items = {item["name"]: item for item in json.loads(done.stdout)}
    assert (done.returncode, done.stderr) == (0, "")
    assert {name for name, item in items.items() if item["required"]} == REQUIRED
    assert len(items) == len(doctor.CHECKS) and items["data/"]["ok"]
    assert all(item[key] for item in items.values() for key in ("found", "purpose", "install"))


def test_it_runs_on_the_standard_library_alone() -> None:
    done = run(sys.executable, "-S", "-m", "ops.stack.doctor", PYTHONPATH="")
    assert done.returncode == 0 and "unknown without .venv: `make repro`" in done.stdout, done.stderr


def test_the_script_sets_nothing_up_to_report(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in ("app", "ops", "stages"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for name in ("on-time", "data.dvc", "requirements-dev.txt"):
        shutil.copy2(ROOT / name, copy)
    done = subprocess.run([copy / "on-time", "doctor"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "not made yet: `make setup`" in done.stdout and not (copy / ".venv").exists(), done.stderr


def test_a_required_item_that_is_missing_is_an_error_with_its_command(
    folder: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "ops").symlink_to(ROOT / "ops")
    programs("git", "python3.11", "bash", "sh")
    monkeypatch.setenv("ONTIME_PORT", str(free_port()))
    assert doctor.report() == 1
    out, err = capsys.readouterr()
    assert err == "error: make: not on the PATH: apt install make\n"
    assert "MISSING  make" in out and "-        wrk" in out and "is installed" not in out


@pytest.mark.parametrize(
    ("scripts", "fine", "found"),
    [
        ({}, False, "not on the PATH"),
        ({"uv": "exit 0"}, True, "uv downloads it"),
        ({"python3": "echo 3 12 True /usr/bin/python3"}, False, "not on the PATH"),
        ({"python3.11": "echo 3 11 True /a b/python3.11"}, True, "/a b/python3.11"),
        ({"python3.11": "echo 3 11 False /usr/bin/python3.11"}, False, "/usr/bin/python3.11 without pip and venv"),
        ({"python3.11": "echo 3 11 False /p", "uv": "exit 0"}, True, "/p"),
        ({"python3": "exit 1", "python": "echo 3 11 True /p"}, True, "/p"),
    ],
)
def test_python_is_that_of_the_set_up(scripts: dict[str, str], fine: bool, found: str, programs: Programs) -> None:
    programs(**scripts)
    item = doctor.python()
    assert (item.ok, item.found, item.required) == (fine, found, True)


def test_a_missing_runtime_of_openmp_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    item = doctor.openmp()
    assert (item.state, item.install) == ("MISSING", "apt install libgomp1")


def test_too_little_space_memory_and_no_write_access_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.writable().ok
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4 * 10**9))
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "sysconf", lambda _: 10**4)
    assert not doctor.disk().ok and not doctor.writable().ok and not doctor.memory().ok
    (folder / ".venv").mkdir()
    (folder / ".venv/.ready").touch()
    assert doctor.disk().ok, "less is needed once .venv is made"


def test_data_that_is_not_complete_is_found(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data/one.csv").write_text("cut off", encoding="utf-8")
    item = doctor.data()
    assert not item.ok and item.found.startswith("1 of 5 files, 0 of 34 MB") and item.install == "make data"


def test_an_engine_that_does_not_answer_differs_from_none(programs: Programs) -> None:
    programs()
    assert (doctor.docker().found, doctor.docker().install) == ("not installed", "apt install docker.io")
    programs(docker="exit 1")
    assert doctor.docker().found == "no answer" and not doctor.docker().ok and not doctor.compose().ok
    programs(docker="echo 28.0.1")
    assert doctor.docker().ok and doctor.compose().found == "version 28.0.1"


def test_a_port_is_free_or_taken_by_this_service_or_by_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    class Version(http.server.BaseHTTPRequestHandler):
        """The answer of this service to /version."""

        def do_GET(self) -> None:  # pylint: disable=invalid-name
            """Send it."""
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"model": {"name": "m", "version": "3"}}')

        def log_message(self, *_: object) -> None:  # pylint: disable=arguments-differ
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Version) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("ONTIME_PORT", str(server.server_port))
        assert doctor.port().found == "this service answers, with version 3 of m"
        server.shutdown()
    assert doctor.port().ok and doctor.port().found == "free"
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert reach.answer(other.getsockname()[1]) == "another program listens"


def test_the_remotes_of_dvc_are_found(folder: Path) -> None:
    assert not doctor.remote().ok
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config.local").write_text("['remote \"team\"']\n    url = s3://x\n", encoding="utf-8")
    assert doctor.remote().ok and doctor.remote().found == "team"


def test_the_registry_is_named_with_its_versions_or_with_what_is_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.registry().found == "sqlite:///mlflow.db does not exist yet"
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.executescript(
            "CREATE TABLE registered_model_aliases (workspace, name, alias, version);"
            "CREATE TABLE model_versions (workspace, name, version, run_id, creation_time);"
            "CREATE TABLE model_version_tags (workspace, name, version, key, value);"
            "INSERT INTO registered_model_aliases VALUES ('default', 'flight-delay', 'staging', 2);"
            "INSERT INTO model_versions VALUES ('default', 'flight-delay', 2, 'run', 1);"
        )
    item = doctor.registry()
    assert not item.ok and item.found.startswith("Production is no version, Staging is 2 of flight-delay")
    assert item.install == "make promote"
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("INSERT INTO registered_model_aliases VALUES ('default', 'flight-delay', 'production', 2)")
    assert doctor.registry().ok
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{free_port()}")
    item = doctor.registry()
    assert not item.ok and item.found.endswith("is unreachable") and "secret" not in item.found
    assert item.install == "env -u MLFLOW_TRACKING_URI make repro"


def test_a_variable_that_cannot_be_honoured_is_required_to_go() -> None:
    command = [sys.executable, "-m", "ops.stack.doctor"]
    for name, text in (
        ("ONTIME_API_KEYZ", "is ONTIME_API_KEYS meant?"),
        ("MLFLOW_REGISTRY_URI", "names another store"),
    ):
        done = run(*command, **{name: "x"})
        assert done.returncode == 1 and "error: variables: " in done.stderr and text in done.stderr
    done = run(*command, MLFLOW_RUN_ID="x", ONTIME_WORKERS="2")
    (row,) = (line for line in done.stdout.splitlines() if "variables" in line)
    in_use, _, ignored = row.partition("ignored: ")  # MLflow, used by other tests, exports variables of its own
    assert done.returncode == 0 and "MLFLOW_RUN_ID" in ignored and "ONTIME_WORKERS" in in_use
