"""A service that a test starts, and a registry whose versions give different answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import mlflow
import pytest
from tritonclient.http import InferenceServerClient

from app.model import bundle as model
from app.problem.lookups import Lookups
from tests.support.inference import client_of
from tests.support.models import bake, make_bundle
from tests.support.processes import free_port
from tests.support.registry import Registry, risk
from tests.support.service import Service, Start, started


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a service with some settings (ONTIME_<NAME>, lower case) in a new folder."""
    with ExitStack() as stack:

        def serve(ready: str = "readyz", mlflow_uri: str = "", **settings: object) -> Service:
            environment = {f"ONTIME_{name.upper()}": str(value) for name, value in settings.items()}
            return stack.enter_context(started(tmp_path, ready, MLFLOW_TRACKING_URI=mlflow_uri, **environment))

        yield serve


@pytest.fixture(scope="session")
def bundles(tables: Lookups, bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three bundles that give different answers."""
    path = tmp_path_factory.mktemp("bundles")
    shutil.copytree(bundle_dir, path / "20")
    return [path / "20", *(make_bundle(tables, path / str(rounds), rounds) for rounds in (5, 60))]


@pytest.fixture(scope="session")
def mlflow_registry(bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with three good versions."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    found = Registry(folder, f"http://127.0.0.1:{port}", {})
    with found.server(port):
        for path in bundles:
            bundle = model.load(path / model.MODEL_FILE, path / model.MANIFEST_FILE)
            found.versions[found.publish(path)] = risk(bundle)
        assert len(set(found.versions.values())) == 3
        yield found
    mlflow.set_tracking_uri(None)


@pytest.fixture
def image(bundles: list[Path], tmp_path: Path) -> Path:
    """The first version as it lies in an image."""
    return bake(bundles[0], "1", tmp_path / "image")


@pytest.fixture(scope="session")
def journalled(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on the small bundle, with a journal."""
    folder = tmp_path_factory.mktemp("service")
    with started(folder, ONTIME_BAKED_MODEL=str(bake(bundle_dir, "7", folder / "baked"))) as running:
        running.journal = f"sqlite:///{folder}/journal.db"
        yield running


@pytest.fixture(scope="session")
def triton(journalled: Service) -> Iterator[InferenceServerClient]:
    """Triton's client of this service."""
    with client_of(journalled) as client:
        yield client
