"""A small registry of models of made-up flights, on SQLite and on a real server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from app.problem.lookups import Lookups
from tests.support.processes import free_port
from tests.support.promotion import Bench, fill, make_folder
from tests.support.registry import mlflow_server


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
