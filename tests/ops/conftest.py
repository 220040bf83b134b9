"""A small registry of models of made-up flights, on SQLite and on a real server; an image of one of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from app.problem.lookups import Lookups
from tests.support.clone import make_clone
from tests.support.processes import free_port
from tests.support.promotion import Bench, fill, make_folder
from tests.support.registry import mlflow_server
from tests.support.release import Release, has_engine


@pytest.fixture(scope="session")
def folder(tables: Lookups, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with params.yaml, made-up test flights and bundles of different quality."""
    path = tmp_path_factory.mktemp("registry")
    make_folder(path, tables)
    return path


@pytest.fixture(scope="session")
def filled(folder: Path) -> tuple[Path, dict[str, str]]:
    """A SQLite file in which every bundle is registered; nothing is promoted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        versions = fill(folder, ["weak", "good", "better", "equal", "shuffled", "broken slice"])
    return folder / "mlflow.db", versions


@pytest.fixture
def bench(filled: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A copy of that file, which the test may change."""
    database, versions = filled
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    shutil.copy(database, tmp_path / "mlflow.db")
    monkeypatch.chdir(database.parent)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return Bench(database.parent, uri, versions)


@pytest.fixture
def served(
    folder: Path, filled: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """The same folder with a real MLflow server on loopback, in which three bundles are registered over HTTP."""
    assert filled  # its SQLite file exists: MLflow has made its tables once in this session
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with mlflow_server(tmp_path, port, f"sqlite:///{tmp_path}/server.db"):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        yield Bench(folder, uri, fill(folder, ["weak", "good", "better"]))
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="session")
def release(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """A clone whose registry holds two small models, version 1 in Production, and the image of that version."""
    if not has_engine() and not os.environ.get("CI"):
        pytest.skip("no Docker engine answers on this machine")
    clone = make_clone(tmp_path_factory.mktemp("release"), data=False)
    clone.run("git", "remote", "add", "origin", "https://user:token@git.example.com/team/on-time.git")
    uri = f"sqlite:///{clone.path}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone.path)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        fill(folder, ["good", "better"])
    repository = f"on-time-test-{os.getpid()}"
    commit = clone.run("git", "rev-parse", "HEAD").stdout.strip()
    made = Release(clone.path, uri, commit, repository)
    made.promote("1")
    done = made.run("release image")
    assert done.returncode == 0, done.stderr[-3000:]
    yield made
    made.remove()
