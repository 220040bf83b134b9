"""`on-time monitor local` as a whole: everything that it starts is scraped, and one signal ends all of it."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import psutil

from ops.monitoring.local import NOT_HERE, TARGETS
from tests.conftest import ROOT, bake
from tests.support.monitoring import needs
from tests.support.processes import free_port, running, started

pytestmark = needs("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter", "prometheus-node-exporter")

SPEED, WEEK_SECONDS = 15, 604800
ELSEWHERE = "from ops.monitoring import local as m; m.TARGETS.update({!r}); m.watch_all({}, {}, '', {!r})"


def up(address: str) -> dict[str, str]:
    """Return the state of each job that Prometheus scrapes; empty while Prometheus does not answer."""
    try:
        answer = httpx.get(f"http://{address}/api/v1/targets")
    except httpx.HTTPError:
        return {}
    if answer.status_code != 200:  # while it starts, it answers 503 with a text
        return {}
    return {target["labels"]["job"]: target["health"] for target in answer.json()["data"]["activeTargets"]}


def probes(address: str) -> dict[str, str]:
    """Return the result of each probe, "1" for a success."""
    found = httpx.get(f"http://{address}/api/v1/query", params={"query": "probe_success"}).json()["data"]["result"]
    return {one["metric"]["job"]: one["value"][1] for one in found}


def test_all_it_starts_is_scraped_and_a_signal_ends_it(bundle_dir: Path, tmp_path: Path) -> None:
    targets = {name: f"127.0.0.1:{free_port()}" for name in TARGETS}
    address, api = targets["prometheus:9090"], targets["api:8000"]
    journal = {"ONTIME_JOURNAL_URL": f"sqlite:///{tmp_path}/journal.db"}
    service = journal | {
        "ONTIME_PORT": api.split(":")[1],
        "ONTIME_BAKED_MODEL": str(bake(bundle_dir, "7", tmp_path / "b")),
    }
    monitoring = journal | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    code = ELSEWHERE.format(targets, SPEED, WEEK_SECONDS, api)
    with (
        running([sys.executable, "-m", "app"], f"http://{api}/readyz", ROOT, **service),
        started([sys.executable, "-c", code], ROOT, **monitoring) as process,
    ):
        process.wait_until(f"all jobs are up at {address}", lambda: set(up(address).values()) == {"up"})
        assert not set(up(address)) & set(NOT_HERE) and len(up(address)) == len(TARGETS) - len(NOT_HERE) + 1
        succeed = {"probe-ready": "1", "probe-predict": "1"}
        process.wait_until("the probes succeed", lambda: probes(address) == succeed)
        children = psutil.Process(process.pid).children()
        assert len(children) == 6
        process.terminate()
        assert process.wait(30) == 0, process.output()
    assert not [child for child in children if child.is_running()]
