"""`on-time monitor local` as a whole: everything that it starts is scraped, and one signal ends all of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from ops.monitoring.local import NOT_HERE, TARGETS
from tests.conftest import ROOT, bake, free_port, running
from tests.support.monitoring import needs

pytestmark = needs("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter", "prometheus-node-exporter")

WAIT_SECONDS = 120
ELSEWHERE = "from ops.monitoring import local as m; m.TARGETS.update({!r}); m.watch_all(15, 604800, '', {!r})"


def up(address: str) -> dict[str, str]:
    """Return which jobs Prometheus reaches, or why not."""
    try:
        targets = httpx.get(f"http://{address}/api/v1/targets").json()["data"]["activeTargets"]
    except httpx.HTTPError:
        return {"prometheus": "does not answer"}
    return {target["labels"]["job"]: target["health"] for target in targets}


def test_what_it_starts_is_scraped_and_one_signal_ends_it(bundle_dir: Path, tmp_path: Path) -> None:
    targets = {name: f"127.0.0.1:{free_port()}" for name in TARGETS}
    address = targets["prometheus:9090"]
    journal = {"ONTIME_JOURNAL_URL": f"sqlite:///{tmp_path}/journal.db"}
    service = journal | {
        "ONTIME_PORT": targets["api:8000"].split(":")[1],
        "ONTIME_BAKED_MODEL": str(bake(bundle_dir, "7", tmp_path / "baked")),
    }
    code = ELSEWHERE.format(targets, targets["api:8000"])
    env = os.environ | journal | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    with (
        running([sys.executable, "-m", "app"], f"http://{targets['api:8000']}/readyz", ROOT, **service),
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env) as process,
    ):
        deadline = time.monotonic() + WAIT_SECONDS
        while set(up(address).values()) != {"up"}:
            assert process.poll() is None and time.monotonic() < deadline, up(address)
            time.sleep(0.5)
        assert not set(up(address)) & set(NOT_HERE) and len(up(address)) == len(TARGETS) - len(NOT_HERE) + 1
        started = psutil.Process(process.pid).children()
        assert len(started) == 6
        process.terminate()
        assert process.wait(30) == 0
    assert not [child for child in started if child.is_running()]
