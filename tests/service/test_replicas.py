"""Two replicas behind a proxy, one registry, and one journal in PostgreSQL: as Kubernetes runs the service."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.journal.database import connect
from ops.monitoring.drift import journal
from tests.service.test_hot_swap import QUICK, assert_sound
from tests.support.journal import written
from tests.support.processes import free_port, running, wait_for
from tests.support.servers.postgres import Postgres
from tests.support.servers.registry import Registry
from tests.support.servers.service import Service, Traffic, started

pytestmark = pytest.mark.long


@pytest.fixture
def replicas(mlflow_registry: Registry, postgres: Postgres, tmp_path: Path) -> Iterator[tuple[Service, Service, str]]:
    """Two services that follow version 1, and the address of their journal."""
    mlflow_registry.point("1")
    url = postgres.database()
    settings = {"MLFLOW_TRACKING_URI": mlflow_registry.uri, "ONTIME_REFRESH_SECONDS": str(QUICK)}
    settings |= {"ONTIME_JOURNAL_URL": url, "ONTIME_MODEL_CACHE": "none"}
    with started(tmp_path, **settings) as one, started(tmp_path, **settings) as two:
        yield one, two, url


def test_promotion_under_load_loses_and_mixes_nothing(
    replicas: tuple[Service, Service, str], mlflow_registry: Registry
) -> None:
    *services, url = replicas
    base = f"http://127.0.0.1:{free_port()}"
    upstream = [f"--to={service.base}" for service in services]
    with running(
        [Path(sys.executable).parent / "caddy", "reverse-proxy", f"--from={base}", *upstream], f"{base}/readyz"
    ):
        with Traffic(base, connections=8) as traffic:
            for version in ("2", "3", "2"):
                wait_for("requests of one version", lambda n=len(traffic.answers): len(traffic.answers) > n + 300)
                mlflow_registry.point(version)
                wait_for("both serve it", lambda v=version: all(service.serves(v) for service in services))
    assert_sound(traffic, mlflow_registry)
    assert traffic.versions() == {"1", "2", "3"} and len(traffic.ids()) == len(traffic.answers) > 900
    answered = [
        service.metric('http_requests_total{handler="/predict",method="POST",status="2xx"}') for service in services
    ]
    assert sum(answered) == len(traffic.answers) and min(answered) > len(traffic.answers) / 4
    wait_for("all are in the journal", lambda: written(url) == traffic.ids())
    engine = connect(url)
    for version in traffic.versions():
        found = sum(1 for header, *_ in traffic.answers if header == version)
        assert len(journal.read_window(engine, version, 1, 100_000).predictions) == found
    engine.dispose()
