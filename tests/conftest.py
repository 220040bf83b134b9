"""What the tests share: a small model made in a second, and the whole pipeline run once in a clone."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import httpx
import hypothesis
import lightgbm
import numpy as np
import psycopg
import pytest

from app.interface import EXAMPLE, FEATURE_NAMES
from app.model import bundle as model
from app.problem.lookups import Lookups
from app.registry import version as registry
from stages.problem.table import time_zone_offsets
from stages.train import write_bundle

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 180

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background, and so in what tests start
hypothesis.settings.register_profile("shared machine", deadline=None)  # a slow machine is no failure
hypothesis.settings.load_profile("shared machine")


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


def make_bundle(tables: Lookups, folder: Path, rounds: int) -> Path:
    """Write a bundle whose model knows that rain and the evening are bad."""
    rng = np.random.default_rng(0)
    features = rng.random((4000, len(FEATURE_NAMES)))
    features[:, :3] = rng.integers(0, 3, (4000, 3))
    features[:, FEATURE_NAMES.index("departure_minute")] *= 1440
    risk = (
        features[:, FEATURE_NAMES.index("precipitation_in")]
        + features[:, FEATURE_NAMES.index("departure_minute")] / 1440
    )
    target = (risk + rng.normal(0, 0.3, 4000) > 1).astype(np.int8)
    data = lightgbm.Dataset(features, target, feature_name=list(FEATURE_NAMES), categorical_feature=[0, 1, 2])
    booster = lightgbm.train({"objective": "binary", "verbosity": -1, "num_leaves": 7, "seed": 1}, data, rounds)
    facts = {"threshold": 0.5, "lookups": tables.to_json(), "training_data_sha256": "0" * 64}
    write_bundle(booster, facts, [EXAMPLE, EXAMPLE | {"weather": None}], folder)
    return folder


@pytest.fixture(scope="session")
def bundle_dir(tables: Lookups, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle."""
    return make_bundle(tables, tmp_path_factory.mktemp("bundle"), rounds=20)


@pytest.fixture(scope="session")
def bundle(bundle_dir: Path) -> model.Bundle:
    """The small bundle, loaded."""
    return model.load(bundle_dir / model.MODEL_FILE, bundle_dir / model.MANIFEST_FILE)


def bake(bundle_dir: Path, version: str, folder: Path) -> Path:
    """Write a bundle as the folder of a registered version."""
    shutil.copytree(bundle_dir, folder)
    digest = hashlib.sha256((folder / model.MANIFEST_FILE).read_bytes()).hexdigest()
    facts = {"name": "flight-delay", "version": version, "alias": "production", "run_id": "0" * 32}
    known = registry.Registered(**facts, bundle_digest=digest, created=1.0)
    (folder / registry.VERSION_FILE).write_text(known.model_dump_json())
    return folder


@pytest.fixture
def baked(bundle_dir: Path, tmp_path: Path) -> Path:
    """The small bundle as version 7, as it lies in an image."""
    return bake(bundle_dir, "7", tmp_path / "baked")


class Postgres:
    """A PostgreSQL cluster of its own on loopback, which can be stopped and started."""

    def __init__(self, programs: Path, folder: Path, password: str = "") -> None:
        self.programs, self.folder, self.port = programs, folder, free_port()
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it refuses to run as root
        if self._as:
            shutil.chown(folder, "postgres")
        access = ["-A", "trust"]
        if password:
            (folder / "password").write_text(password, encoding="utf-8")
            access = ["-A", "scram-sha-256", "--pwfile", str(folder / "password")]
        self._run("initdb", "-U", "postgres", *access, "-E", "UTF8", "--locale=C", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self.programs / program), "-D", str(self.folder / "data"), *arguments]
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-o", options, "-l", str(self.folder / "log"))

    def stop(self) -> None:
        """Stop it, whoever is connected."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    def database(self) -> str:
        """Return the URL of a new, empty database."""
        name = f"d{uuid.uuid4().hex}"
        with psycopg.connect(host="127.0.0.1", port=self.port, user="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"


def postgres_programs() -> Path:
    """Return the folder of PostgreSQL's programs; skip where there are none, outside CI."""
    found = [shutil.which("initdb"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))]
    programs = [Path(path).parent for path in found if path]
    if not programs and not os.environ.get("CI"):
        pytest.skip("no PostgreSQL on this machine (Debian: apt install postgresql)")
    return programs[-1]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL; a test that stops it starts it again."""
    programs = postgres_programs()
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        cluster = Postgres(programs, Path(folder))
        cluster.start()
        yield cluster
        cluster.stop()


@dataclass(frozen=True)
class Clone:
    """A copy of this working tree, committed to a repository of its own, with its own DVC cache and MLflow."""

    path: Path

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone, with this environment's programs."""
        env = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "PYTEST_CURRENT_TEST")}
        env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", "DVC_NO_ANALYTICS": "1"} | environment
        done = subprocess.run(command, cwd=self.path, env=env, capture_output=True, text=True, check=False)
        assert (
            not check or done.returncode == 0
        ), f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def git_status(self) -> str:
        """Return what git sees changed."""
        return self.run("git", "status", "--porcelain").stdout


def make_clone(path: Path, data: bool = True) -> Clone:
    """Copy all files that git knows or would add, and the raw data if wanted, and commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, path / name)
    if data:
        shutil.copytree(ROOT / "data", path / "data")
    clone = Clone(path)
    clone.run("git", "init", "--quiet", "--initial-branch=main")
    clone.run("git", "add", "--all")
    clone.run(
        "git", "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "--quiet", "-m", "The working tree"
    )
    return clone


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the whole pipeline has run on the real data."""
    clone = make_clone(tmp_path_factory.mktemp("pipeline"))
    print(clone.run("dvc", "repro").stdout)
    return clone


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(
    command: list[str], url: str, cwd: Path, seconds: float = START_SECONDS, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Run a server until the block ends; the block starts when the URL answers 200."""
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            command, cwd=cwd, env=os.environ | environment, stdout=log, stderr=subprocess.STDOUT, text=True
        ) as server,
    ):
        try:
            deadline = time.monotonic() + seconds
            while not _answers(url):
                if server.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    pytest.fail(f"{command} does not answer at {url}:\n{log.read()[-3000:]}")
                time.sleep(0.1)
            yield server
        finally:
            server.terminate()
            server.wait(20)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="session")
def service(pipeline: Clone) -> Iterator[str]:
    """The address of the real service on the model of the real pipeline, promoted."""
    pipeline.run("python", "-m", "ops.registry.commands", "promote")
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    uri = f"sqlite:///{pipeline.path}/mlflow.db"
    journal = f"sqlite:///{pipeline.path}/journal.db"
    settings = {"ONTIME_PORT": str(port), "MLFLOW_TRACKING_URI": uri, "ONTIME_JOURNAL_URL": journal}
    with running([sys.executable, "-m", "app"], f"{base}/readyz", ROOT, **settings):
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
