"""A real service under traffic, and a real registry whose versions give different answers."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import mlflow
import pytest
from mlflow import MlflowClient

from app.interface import EXAMPLE, Request
from app.model import bundle as model
from app.model.bundle import Bundle
from app.problem.lookups import Lookups
from app.registry import version as registry
from stages import tracking
from tests.conftest import ROOT, bake, free_port, make_bundle, running

NAME = "flight-delay"
PATIENCE = 120


def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE} s: {what}"
        time.sleep(0.02)


@dataclass
class Traffic:
    """Requests one after another on some connections, until the block ends; every answer is looked at."""

    base: str
    connections: int = 4
    answers: list[tuple[str, str, str, float]] = field(default_factory=list)
    """Version in the header, version in the body, id, probability."""
    failed: list[str] = field(default_factory=list)
    slowest: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Traffic:
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._run())))
        self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads[-1].join()

    async def _run(self) -> None:
        async with httpx.AsyncClient(base_url=self.base, timeout=30) as client:
            await asyncio.gather(*(self._connection(client) for _ in range(self.connections)))

    async def _connection(self, client: httpx.AsyncClient) -> None:
        while not self._stop.is_set():
            started = time.perf_counter()
            try:
                answer = await client.post("/predict", json=EXAMPLE)
                body = answer.raise_for_status().json()
                facts = body["model"]["version"], body["prediction_id"], body["probability"]
                self.answers.append((answer.headers["X-Model-Version"], *facts))
            except (httpx.HTTPError, KeyError) as err:
                self.failed.append(repr(err))
            self.slowest = max(self.slowest, time.perf_counter() - started)
            await asyncio.sleep(0.002)

    def versions(self) -> set[str]:
        """Return the versions that answered so far."""
        return {version for version, *_ in self.answers}

    def ids(self) -> set[str]:
        """Return the ids that were answered so far."""
        return {name for _, _, name, _ in self.answers}


class Service:
    """A running service."""

    def __init__(self, base: str, pid: int) -> None:
        self.base, self.pid = base, pid

    def version(self) -> dict[str, object]:
        """Return what /version says."""
        return dict(httpx.get(f"{self.base}/version").json())

    def serves(self, version: str) -> bool:
        """Tell whether this version is served."""
        return self.version().get("model") == {"name": NAME, "version": version}

    def metric(self, series: str) -> float:
        """Return the value of a series, as it stands in the exposition; 0 where there is none."""
        text = httpx.get(f"{self.base}/metrics").text
        found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0


Start = Callable[..., Service]


@contextmanager
def started(cwd: Path, ready: str = "readyz", **settings: str) -> Iterator[Service]:
    """Run the service until the block ends."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    plain = {"ONTIME_PORT": str(port), "ONTIME_DRAIN_SECONDS": "0", "MLFLOW_TRACKING_URI": "", "PYTHONPATH": str(ROOT)}
    with running([sys.executable, "-m", "app"], f"{base}/{ready}", cwd, **(plain | settings)) as process:
        yield Service(base, process.pid)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a service with some settings (ONTIME_<NAME>, lower case) in a new folder."""
    with ExitStack() as stack:

        def serve(ready: str = "readyz", mlflow_uri: str = "", **settings: object) -> Service:
            environment = {f"ONTIME_{name.upper()}": str(value) for name, value in settings.items()}
            return stack.enter_context(started(tmp_path, ready, MLFLOW_TRACKING_URI=mlflow_uri, **environment))

        yield serve


@dataclass
class Registry:
    """A real MLflow server on loopback, with versions whose answers to the example flight are known."""

    folder: Path
    uri: str
    versions: dict[str, float]
    """The answer of each good version."""

    @property
    def client(self) -> MlflowClient:
        """A client of the server."""
        return MlflowClient(self.uri)

    def point(self, version: str) -> None:
        """Make a version Production."""
        self.client.set_registered_model_alias(NAME, "production", version)

    def publish(self, bundle_dir: Path, digest: str = "") -> str:
        """Register a bundle as the pipeline does, and return its version; with `digest`, lie about its bundle."""
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_experiment("flight-delay")
        (bundle_dir / model.REFERENCE_FILE).write_bytes(b"none")
        with mlflow.start_run() as run:
            tracking.log_bundle(bundle_dir)
        tags = self.client.get_run(run.info.run_id).data.tags
        version = mlflow.register_model(tags[tracking.MODEL_URI_TAG], NAME)
        true = tags[tracking.DIGEST_TAG]
        self.client.set_model_version_tag(NAME, version.version, registry.DIGEST_TAG, digest or true)
        return str(version.version)

    def server(self, port: int) -> AbstractContextManager[object]:
        """Run the server until the block ends."""
        return mlflow_server(self.folder, port, f"sqlite:///{self.folder}/server.db")


def mlflow_server(folder: Path, port: int, store: str) -> AbstractContextManager[object]:
    """Run an MLflow server with artifacts in a folder, until the block ends."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(folder / "store")]
    return running(command, f"http://127.0.0.1:{port}/health", folder, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")


def risk(bundle: Bundle) -> float:
    """Return a bundle's answer to the example flight."""
    return float(bundle.probabilities([Request.model_validate(EXAMPLE)])[0])


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
