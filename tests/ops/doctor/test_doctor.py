"""`on-time doctor`: what is installed, what is missing with the command that helps, and the exit code."""

from __future__ import annotations

import ctypes
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ops.doctor import doctor
from ops.doctor.doctor import Found, Probe
from tests.conftest import ROOT
from tests.support.processes import free_port

REQUIRED = {"Python 3.11", "OpenMP", "git", "make", "checkout", "disk", "memory", "variables"}
Programs = Callable[..., Path]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Return a function that leaves only these scripts on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def leave(**scripts: str) -> Path:
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


def test_a_machine_that_can_train_gets_0() -> None:
    done = run(sys.executable, "-m", "ops.cli", "doctor", "--json", MLFLOW_RUN_ID="x", ONTIME_WORKERS="2")
    items = {item["name"]: item for item in json.loads(done.stdout)}
    assert (done.returncode, done.stderr) == (0, "")
    assert {name for name, item in items.items() if item["required"]} == REQUIRED
    assert len(items) == len(doctor.CHECKS) and items["data/"]["ok"]
    assert all(item[key] for item in items.values() for key in ("found", "purpose", "install"))
    in_use, _, ignored = items["variables"]["found"].partition("ignored: ")
    assert "MLFLOW_RUN_ID" in ignored and "ONTIME_WORKERS" in in_use


def test_it_runs_on_the_standard_library_alone() -> None:
    done = run(sys.executable, "-S", "-m", "ops.doctor.doctor", PYTHONPATH="")
    assert done.returncode == 0 and "unknown without .venv: `make repro`" in done.stdout, done.stderr


def test_the_script_sets_nothing_up_to_report(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in ("app", "ops", "stages"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for name in ("on-time", "data.dvc", "requirements-dev.txt"):
        shutil.copy2(ROOT / name, copy)
    done = subprocess.run([copy / "on-time", "doctor"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "not made yet: `make setup`" in done.stdout and not (copy / ".venv").exists(), done.stderr


def test_a_required_part_that_is_missing_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = (
        Probe("make", "commands", lambda: Found(False, "not on the PATH"), "apt install make", True),
        Probe("wrk", "make bench", lambda: Found(False, "not on the PATH"), "apt install wrk"),
        Probe("port", "make serve", lambda: Found(False, "taken", "make serve PORT=1"), "make serve"),
    )
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert doctor.report() == 1
    out, err = capsys.readouterr()
    assert err == "error: make: not on the PATH: apt install make\n"
    assert [line.split()[0] for line in out.splitlines()] == ["MISSING", "-", "-"] and out.count("`make serve PORT=1`")


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
    assert doctor.python() == Found(fine, found)


def test_a_machine_that_is_too_small_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise OSError

    assert doctor.writable().ok
    monkeypatch.setattr(ctypes, "CDLL", refuse)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4 * 10**9))
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "sysconf", lambda _: 10**4)
    for check in (doctor.openmp, doctor.disk, doctor.writable, doctor.memory):
        assert not check().ok
    (folder / ".venv").mkdir()
    (folder / ".venv/.ready").touch()
    assert doctor.disk().ok, "less is needed once .venv is made"


def test_files_of_the_checkout_are_found(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data/one.csv").write_text("cut off", encoding="utf-8")
    assert doctor.data() == Found(False, "1 of 5 files, 0 of 34 MB")
    assert doctor.remote() == Found(False, "none")
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config.local").write_text("['remote \"team\"']\n    url = s3://x\n", encoding="utf-8")
    assert doctor.remote() == Found(True, "team")


def test_an_engine_without_answer_differs_from_none(programs: Programs) -> None:
    programs()
    assert doctor.docker() == Found(False, "not installed")
    programs(docker="exit 1")
    assert doctor.docker() == Found(False, "no answer", "systemctl start docker, as root") and not doctor.compose().ok
    programs(docker="echo 28.0.1")
    assert doctor.docker().ok and doctor.compose().text == "version 28.0.1"


def test_a_port_is_free_or_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONTIME_PORT", str(free_port()))
    assert doctor.port().ok
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("ONTIME_PORT", str(other.getsockname()[1]))
        assert doctor.port().text.endswith("another program listens")
        answer = io.BytesIO(b'{"model": {"name": "m", "version": "3"}}')
        monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: answer)
        assert doctor.port().text.endswith("this service answers, with version 3 of m")


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ("- 2", (False, "Production is none, Staging is version 2 of flight-delay", "make promote")),
        ("- -", (False, "Production is none, Staging is none of flight-delay", "make repro")),
        ("2 3", (True, "Production is version 2, Staging is version 3 of flight-delay", "make promote")),
        (None, (False, "sqlite:///mlflow.db has no readable registry of flight-delay", "make repro")),
    ],
)
def test_the_registry_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, versions: str | None, expected: tuple[bool, str, str]
) -> None:
    assert doctor.registry().text == "sqlite:///mlflow.db does not exist yet"
    (folder / "mlflow.db").touch()
    monkeypatch.setattr(doctor, "output", lambda *_, **__: versions)
    found = doctor.registry()
    assert (found.ok, found.text.removesuffix(" in sqlite:///mlflow.db"), found.install) == expected


def test_a_registry_that_is_unreachable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{free_port()}")
    found = doctor.registry()
    assert not found.ok and found.text.endswith("is unreachable") and "secret" not in found.text
    assert found.install == "env -u MLFLOW_TRACKING_URI make repro"


@pytest.mark.parametrize(
    ("name", "text"),
    [("ONTIME_API_KEYZ", "is ONTIME_API_KEYS meant?"), ("MLFLOW_REGISTRY_URI", "names another store")],
)
def test_a_variable_that_cannot_be_honoured_has_to_go(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "x")
    found = doctor.variables()
    assert not found.ok and text in found.text
