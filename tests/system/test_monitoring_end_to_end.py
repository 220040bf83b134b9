"""From a fault of the real service to the receiver's log, through real Prometheus and Alertmanager, in fast motion.

One service, watched by one Prometheus, serves all tests; the last one ends Prometheus.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from app.interface import EXAMPLE
from ops.monitoring.local import TARGETS, Site, started
from tests.conftest import ROOT, free_port, running
from tests.support.models import bake
from tests.support.monitoring import needs
from tests.support.processes import Program, wait_for
from tests.support.servers.cadvisor import exporter
from tests.support.servers.faulty import ORDERS

pytestmark = needs("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter")

SPEED = 30
DOWN_SECONDS = 90
WAIT_SECONDS = 300


@dataclass
class Scene:
    """The service, what watches it, and what the receiver has written."""

    folder: Path
    site: Site
    receiver: Program
    service: Program | None = None
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    production: str = "7"
    """The version that the stand-in for the drift monitor reports as Production."""

    def order(self, errors: float = 0.0, delay: float = 0.0) -> None:
        """Let the service fail, or be slow, from now on; without orders it is well again."""
        partial = self.folder / "orders.new"
        partial.write_text(json.dumps({"errors": errors, "delay": delay}))
        partial.rename(self.folder / "orders.json")

    def count(self, alert: str, status: str) -> int:
        """Return how often the receiver has been told this."""
        lines = [line for line in self.receiver.output().splitlines() if f'"alertname": "{alert}"' in line]
        return sum(f'"status": "{status}"' in line for line in lines)

    def wait(self, alert: str, status: str, seconds: float = WAIT_SECONDS) -> float:
        """Wait until the receiver is told this once more; return the seconds that it took."""
        began, before = time.monotonic(), self.count(alert, status)
        wait_for(f"{alert} {status}", lambda: self.count(alert, status) > before, seconds, self.receiver.output)
        return time.monotonic() - began

    def series(self, query: str) -> int:
        """Return the number of series that a query finds; 0 while Prometheus does not answer."""
        with suppress(httpx.HTTPError):
            answer = httpx.get(f"http://{self.site.targets['prometheus:9090']}/api/v1/query", params={"query": query})
            return len(answer.json()["data"]["result"]) if answer.status_code == 200 else 0
        return 0

    def registry(self) -> str:
        """Return what the drift monitor exports of the registry."""
        labels = f'name="flight-delay",alias="production",version="{self.production}"'
        return f"# TYPE registry_alias_info gauge\nregistry_alias_info{{{labels}}} 1\n"

    @contextmanager
    def serving(self) -> Iterator[Program]:
        """Run the service with faults to order.

        A slow model keeps the whole process waiting: with more clients than one and the probe, scrapes would time out,
        and ApiDown would rightly silence ApiSlow.
        """
        host, port = self.site.targets["api:8000"].split(":")
        settings = {
            "ONTIME_HOST": host,
            "ONTIME_PORT": port,
            "ONTIME_BAKED_MODEL": str(self.folder / "baked"),
            "ONTIME_JOURNAL_URL": "none",
            "ONTIME_DRAIN_SECONDS": "0",
            "ONTIME_REQUEST_SECONDS": "30",  # slow is not failed
            ORDERS: str(self.folder / "orders.json"),
        }
        command = [sys.executable, "-m", "tests.support.servers.faulty"]
        with running(command, f"http://{host}:{port}/readyz", ROOT, **settings) as service:
            yield service


@contextmanager
def load(address: str) -> Iterator[None]:
    """Send the service requests, one at a time."""
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(0.02):
            with suppress(httpx.HTTPError):
                httpx.post(f"http://{address}/predict", json=EXAMPLE, timeout=5)

    client = threading.Thread(target=send)
    client.start()
    try:
        yield
    finally:
        stop.set()
        client.join()


@pytest.fixture(scope="module")
def scene(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The service under load, and what watches it: all is well, and nothing is silent."""
    folder = tmp_path_factory.mktemp("scene")
    bake(bundle_dir, "7", folder / "baked")
    site = Site(folder, {name: f"127.0.0.1:{free_port()}" for name in TARGETS}, SPEED, token="a-token-of-this-test")
    site.write()
    settings = site.ours()["monitor receiver"] | {"ONTIME_RECEIVER_SILENCE_COMMAND": f"touch {folder}/silent"}
    receiver = f"http://{site.targets['receiver:8002']}"
    commands = {name: line for name, line in site.commands().items() if "node" not in name}
    with ExitStack() as stack:
        command = [sys.executable, "-m", "ops.cli", "monitor", "receiver"]
        process = stack.enter_context(running(command, f"{receiver}/livez", ROOT, **settings))
        made = Scene(folder, site, process)
        made.order()
        stack.enter_context(exporter(int(site.targets["drift:8001"].split(":")[1]), made.registry))
        made.service = stack.enter_context(made.serving())
        stack.enter_context(load(site.targets["api:8000"]))
        began = time.time()
        made.processes = stack.enter_context(started(commands, {}))

        def heard() -> bool:
            answer = httpx.get(f"{receiver}/readyz")
            return answer.status_code == 200 and answer.json()["watchdog_seconds_ago"] < time.time() - began - 1

        wait_for("the receiver hears from Prometheus", heard, WAIT_SECONDS)
        (folder / "silent").unlink(missing_ok=True)  # until Alertmanager was there, it was silent
        wait_for("the service is scraped", lambda: made.series('up{job="api"} == 1'), WAIT_SECONDS)
        yield made


@pytest.mark.nightly
def test_errors_and_a_slow_model_are_noticed(scene: Scene) -> None:
    wait_for("the rates are known", lambda: scene.series("job_slo:bad_requests:ratio_rate1h"), WAIT_SECONDS)
    assert not scene.series('ALERTS{alertname=~"ErrorBudget.*|ApiErrors|ApiSlow"}')
    scene.order(errors=0.2)
    scene.wait("ErrorBudgetGoneIn2Days", "firing")
    wait_for("ApiErrors", lambda: scene.count("ApiErrors", "firing"), WAIT_SECONDS)
    assert not scene.count("ApiSlow", "firing")
    scene.order()
    scene.wait("ApiErrors", "resolved")
    scene.order(delay=0.3)
    scene.wait("ApiSlow", "firing")
    assert not scene.count("ApiDown", "firing")
    scene.order()
    scene.wait("ApiSlow", "resolved")


@pytest.mark.nightly
def test_another_version_than_production_is_noticed(scene: Scene) -> None:
    wait_for("both versions are known", lambda: scene.series("model_info and on (version) registry_alias_info"))
    assert not scene.series('ALERTS{alertname="WrongVersionServed"}')
    scene.production = "8"
    scene.wait("WrongVersionServed", "firing")
    scene.production = "7"
    scene.wait("WrongVersionServed", "resolved")


def test_a_service_that_dies_pages_and_resolves(scene: Scene) -> None:
    assert not scene.count("ApiDown", "firing")
    assert scene.service
    scene.service.kill()
    assert scene.wait("ApiDown", "firing") < DOWN_SECONDS
    with scene.serving():
        scene.wait("ApiDown", "resolved")
    assert not scene.count("ModelNotLoaded", "firing")


def test_silence_of_prometheus_is_noticed(scene: Scene) -> None:
    ready = f"http://{scene.site.targets['receiver:8002']}/readyz"
    assert httpx.get(ready).status_code == 200 and not (scene.folder / "silent").exists()
    scene.processes["prometheus"].terminate()
    wait_for("the receiver misses Prometheus", lambda: httpx.get(ready).status_code == 503, WAIT_SECONDS)
    wait_for("the command for silence", (scene.folder / "silent").exists, WAIT_SECONDS)
    assert "no alert arrives" in scene.receiver.output()
