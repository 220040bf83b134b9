"""Which tests run, how long each may take, and the fixtures that all share."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import hypothesis
import pytest
from mlflow import MlflowClient

from app.model import bundles
from app.problem.lookups import Lookups
from stages.problem.rows import time_zone_offsets
from tests.support.models import bake, make_bundle
from tests.support.processes import end_tests_by_signals, free_port, running
from tests.support.repositories.clone import ROOT, Clone, make_clone, make_once, make_small_clone
from tests.support.servers.postgres import Postgres, postgres_programs

pytest_plugins = [
    "tests.support.selection",
    "tests.support.fixtures.journals",
    "tests.support.fixtures.registries",
    "tests.support.fixtures.services",
]
hypothesis.settings.register_profile("shared machine", deadline=None)  # a slow machine is not a failure
hypothesis.settings.load_profile("shared machine")
end_tests_by_signals()


@pytest.fixture(scope="session")
def tables() -> Lookups:
    """Lookups with a few airlines and airports, in four time zones, one without daylight saving."""
    airports = {
        "EWR": (40.6925, -74.1687, "America/New_York"),
        "JFK": (40.6398, -73.7789, "America/New_York"),
        "LGA": (40.7772, -73.8726, "America/New_York"),
        "SFO": (37.6190, -122.3749, "America/Los_Angeles"),
        "PHX": (33.4343, -112.0116, "America/Phoenix"),
        "SJU": (18.4394, -66.0018, "America/Puerto_Rico"),
    }
    zones = sorted({zone for _, _, zone in airports.values()})
    return Lookups(
        vocabularies={"carrier": ["AA", "B6", "UA"], "origin": ["EWR", "JFK", "LGA"], "dest": ["PHX", "SFO", "SJU"]},
        airports=airports,
        zones={zone: time_zone_offsets(zone, (2012, 2030)) for zone in zones},
        holidays=[date(2012, 1, 1), date(2013, 1, 1), date(2013, 7, 4), date(2013, 11, 28), date(2030, 12, 25)],
        holiday_reach_days=3,
    )


@pytest.fixture(scope="session")
def bundle_dir(tables: Lookups, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle."""
    return make_bundle(tables, tmp_path_factory.mktemp("bundle"), rounds=20)


@pytest.fixture(scope="session")
def bundle(bundle_dir: Path) -> bundles.Bundle:
    """The small bundle, loaded."""
    return bundles.load(bundle_dir / bundles.MODEL_FILE, bundle_dir / bundles.MANIFEST_FILE)


@pytest.fixture
def baked(bundle_dir: Path, tmp_path: Path) -> Path:
    """The small bundle as version 7, as it lies in an image."""
    return bake(bundle_dir, "7", tmp_path / "baked")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; a test that stops it starts it again."""
    programs = postgres_programs()
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        cluster = Postgres(programs, Path(folder))
        cluster.start()
        yield cluster
        cluster.stop()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the pipeline has run on a small part of the real data; a test leaves it as it was."""
    original = make_once(tmp_path_factory, "small", make_small_clone)
    return Clone(shutil.copytree(original, tmp_path_factory.mktemp("small") / "clone", symlinks=True))


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the whole pipeline has run on all of the real data; for long tests."""
    clone = make_clone(tmp_path_factory.mktemp("pipeline"))
    print(clone.run("dvc", "repro").stdout)
    return clone


@contextmanager
def serving(clone: Clone, database: str = "mlflow.db") -> Iterator[str]:
    """Run the real service on the Production version of a registry in a clone; return its address."""
    base = f"http://127.0.0.1:{free_port()}"
    settings = {
        "ONTIME_PORT": base.rpartition(":")[2],
        "MLFLOW_TRACKING_URI": f"sqlite:///{clone.path}/{database}",
        "ONTIME_JOURNAL_URL": f"sqlite:///{clone.path}/journal.db",
        "ONTIME_MODEL_CACHE": "none",  # the working tree has its own
    }
    with running([sys.executable, "-m", "app"], f"{base}/readyz", ROOT, **settings):
        yield base


@pytest.fixture(scope="session")
def small_service(small: Clone) -> Iterator[str]:
    """The address of the real service on the model of the small pipeline."""
    shutil.copy(small.path / "mlflow.db", small.path / "service.db")
    client = MlflowClient(f"sqlite:///{small.path}/service.db")
    client.set_registered_model_alias("flight-delay", "production", "1")  # the gate refuses a model this weak
    with serving(small, "service.db") as base:
        yield base


@pytest.fixture(scope="session")
def service(pipeline: Clone) -> Iterator[str]:
    """The address of the real service on the model of the whole pipeline, promoted; for long tests."""
    pipeline.run("python", "-m", "ops.cli", "model", "promote")
    with serving(pipeline) as base:
        yield base


@pytest.fixture
def damaged(bundle_dir: Path, tmp_path: Path) -> Callable[[str, bytes, bytes], Path]:
    """Return a function that copies the small bundle and replaces bytes in one of its files."""

    def damage(name: str, old: bytes, new: bytes) -> Path:
        folder = tmp_path / "bundle"
        shutil.copytree(bundle_dir, folder)
        content = (folder / name).read_bytes()
        assert old in content
        (folder / name).write_bytes(content.replace(old, new, 1))
        return folder

    return damage
