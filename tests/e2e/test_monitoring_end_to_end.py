"""From a fault of the real service to the receiver's log, through real Prometheus and Alertmanager, in fast motion."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from app.interface import EXAMPLE
from ops.monitoring.local import TARGETS, Site, started
from tests.conftest import ROOT, free_port, running
from tests.support.faulty import ORDERS
from tests.support.monitoring import needs
from tests.support.processes import wait_for

pytestmark = needs("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter")

SPEED = 30
DOWN_SECONDS = 90
WAIT_SECONDS = 300
WELL = {"errors": 0.0, "delay": 0.0}


@dataclass
class Scene:
    """The service, what watches it, and what the receiver has written."""

    folder: Path
    site: Site
    log: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    registry: list[str] = field(default_factory=lambda: ["7"])

    def order(self, **faults: float) -> None:
        """Let the service fail, or be slow, from now on; without orders it is well again."""
        partial = self.folder / "orders.new"
        partial.write_text(json.dumps(WELL | faults))
        partial.rename(self.folder / "orders.json")

    def lines(self, alert: str, status: str) -> int:
        """Return how often the receiver has been told this."""
        found = [
            line for line in self.log.read_text(encoding="utf-8").splitlines() if f'"alertname": "{alert}"' in line
        ]
        return sum(f'"status": "{status}"' in line for line in found)

    def wait(self, alert: str, status: str, after: int = 0, seconds: float = WAIT_SECONDS) -> float:
        """Wait until the receiver has been told more than `after` times; return the seconds that it took."""
        began = time.monotonic()
        wait_for(f"{alert} {status}", lambda: self.lines(alert, status) > after, seconds, self.log.read_text)
        return time.monotonic() - began


@contextmanager
def serving(scene: Scene, copy: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the service with faults to order on a copy of a registered version, and send it requests, one at a time.

    A slow model keeps the whole process waiting: with more clients than this one and the probe, scrapes would time out,
    and ApiDown would rightly silence ApiSlow.
    """
    host, port = scene.site.address("api:8000").split(":")
    settings = {
        "ONTIME_HOST": host,
        "ONTIME_PORT": port,
        "ONTIME_BAKED_MODEL": str(copy),
        "ONTIME_JOURNAL_URL": "none",
        "ONTIME_DRAIN_SECONDS": "0",
        "ONTIME_REQUEST_SECONDS": "30",  # slow is not failed
        ORDERS: str(scene.folder / "orders.json"),
    }
    stop = threading.Event()

    def load() -> None:
        while not stop.wait(0.02):
            with suppress(httpx.HTTPError):
                httpx.post(f"http://{host}:{port}/predict", json=EXAMPLE, timeout=5)

    client = threading.Thread(target=load, daemon=True)
    with running(
        [sys.executable, "-m", "tests.support.faulty"], f"http://{host}:{port}/readyz", ROOT, **settings
    ) as service:
        client.start()
        try:
            yield service
        finally:
            stop.set()


@contextmanager
def registry(scene: Scene) -> Iterator[None]:
    """Stand in for the drift monitor: export which version is production."""

    class Handler(BaseHTTPRequestHandler):
        """Answers a scrape."""

        def do_GET(self) -> None:  # pylint: disable=invalid-name
            """Say what the registry says."""
            labels = f'name="flight-delay",alias="production",version="{scene.registry[-1]}"'
            body = f"# TYPE registry_alias_info gauge\nregistry_alias_info{{{labels}}} 1\n".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:  # pylint: disable=arguments-differ
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", int(scene.site.address("drift:8001").split(":")[1])), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """The receiver and the stand-in for the registry; no service yet, and nobody who watches it."""
    targets = {name: f"127.0.0.1:{free_port()}" for name in TARGETS}
    site = Site(tmp_path, targets, SPEED, token="a-token-of-this-test")
    site.write()
    settings = site.ours()["monitor receiver"] | {"ONTIME_RECEIVER_SILENCE_COMMAND": f"touch {tmp_path}/silent"}
    url = f"http://{site.address('receiver:8002')}/livez"
    with running([sys.executable, "-m", "ops.cli", "monitor", "receiver"], url, ROOT, **settings) as receiver:
        made = Scene(tmp_path, site, receiver.log)
        made.order()
        with registry(made):
            yield made


@contextmanager
def watching(scene: Scene) -> Iterator[None]:
    """Run Prometheus, Alertmanager and the blackbox exporter."""
    commands = {name: line for name, line in scene.site.commands().items() if "node" not in name}
    with started(commands, {}) as scene.processes:
        yield


def test_a_service_that_dies_pages_and_one_that_comes_back_resolves(scene: Scene, baked: Path) -> None:
    with ExitStack() as stack:
        with serving(scene, baked) as service:
            stack.enter_context(watching(scene))
            time.sleep(5)
            assert not scene.lines("ApiDown", "firing")
            service.kill()
            assert scene.wait("ApiDown", "firing") < DOWN_SECONDS
        with serving(scene, baked):
            scene.wait("ApiDown", "resolved")
    assert not scene.lines("ApiSlow", "firing") and not scene.lines("ModelNotLoaded", "firing")


def test_errors_burn_the_budget_and_a_slow_model_is_noticed(scene: Scene, baked: Path) -> None:
    with serving(scene, baked), watching(scene):
        time.sleep(10)
        assert not scene.lines("ErrorBudgetGoneIn2Days", "firing") and not scene.lines("ApiErrors", "firing")
        scene.order(errors=0.2)
        scene.wait("ErrorBudgetGoneIn2Days", "firing")
        scene.wait("ApiErrors", "firing")
        assert not scene.lines("ApiSlow", "firing")
        scene.order()
        scene.wait("ApiErrors", "resolved")
        scene.order(delay=0.3)
        scene.wait("ApiSlow", "firing")
        assert not scene.lines("ApiDown", "firing")
        scene.order()
        scene.wait("ApiSlow", "resolved")


def test_another_version_than_the_registry_s_is_noticed(scene: Scene, baked: Path) -> None:
    with serving(scene, baked), watching(scene):
        time.sleep(5)
        assert not scene.lines("WrongVersionServed", "firing")
        scene.registry.append("8")
        scene.wait("WrongVersionServed", "firing")
        scene.registry.append("7")
        scene.wait("WrongVersionServed", "resolved")


def test_silence_of_prometheus_is_noticed(scene: Scene) -> None:
    ready = f"http://{scene.site.address('receiver:8002')}/readyz"
    silent = scene.folder / "silent"
    began = time.time()

    def heard() -> bool:
        answer = httpx.get(ready)
        return answer.status_code == 200 and answer.json()["watchdog_seconds_ago"] < time.time() - began - 1

    with watching(scene):
        wait_for("the receiver hears from Prometheus", heard, WAIT_SECONDS)
        silent.unlink(missing_ok=True)  # until Alertmanager was there, it was silent
        time.sleep(15)
        assert httpx.get(ready).status_code == 200 and not silent.exists()
        scene.processes["prometheus"].terminate()
        wait_for("the receiver misses Prometheus", lambda: httpx.get(ready).status_code == 503, WAIT_SECONDS)
        wait_for("the command for silence", silent.exists, WAIT_SECONDS)
    assert "no alert arrives" in scene.log.read_text()


def test_the_receiver_asks_for_the_token(scene: Scene) -> None:
    body = {"alerts": [{"status": "firing", "labels": {"alertname": "CalibrationOff"}}]}
    for header in ({}, {"Authorization": "Bearer another"}):
        for path in ("alerts", "watchdog", "retrain"):
            answer = httpx.post(f"http://{scene.site.address('receiver:8002')}/{path}", json=body, headers=header)
            assert answer.status_code == 401
