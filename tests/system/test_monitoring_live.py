"""Every query of every board and rule, against a real Prometheus that scrapes the real service under load."""

from __future__ import annotations

import asyncio
import functools
import math
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from ops.monitoring.local import TARGETS, Site, started
from ops.monitoring.replay import Day, days, replay
from tests.conftest import Clone, free_port
from tests.support.monitoring import boards, needs, panels, rules
from tests.support.processes import wait_for
from tests.support.promql import fill, reads
from tests.support.servers.cadvisor import CONTAINERS, COUNTERS, GAUGES, exporter

PROGRAMS = ("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter", "prometheus-node-exporter")
pytestmark = [pytest.mark.nightly, needs(*PROGRAMS, "promtool")]

SPEED = 6
ALL_PANELS, ALL_RULES = panels(), rules()
WAIT_SECONDS = 240
DAY_SECONDS = 15


@dataclass(frozen=True)
class Prometheus:
    """The HTTP API of a Prometheus."""

    address: str

    def get(self, path: str) -> Any:
        """Return the data of an answer."""
        return httpx.get(f"http://{self.address}/api/v1/{path}").json()["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an instant query; an error fails the test."""
        answer = httpx.post(f"http://{self.address}/api/v1/query", data={"query": expr}, timeout=30)
        assert answer.status_code == 200, f"{expr}: {answer.text}"
        return list(answer.json()["data"]["result"])


@pytest.fixture(scope="module")
def site(service: str, pipeline: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Everything that `on-time monitor local` starts, beside the real service, and a stand-in for cAdvisor."""
    targets = {name: f"127.0.0.1:{free_port()}" for name in TARGETS} | {"api:8000": service.removeprefix("http://")}
    site = Site(tmp_path_factory.mktemp("monitoring"), targets, SPEED)
    site.write()
    ours = site.ours()
    ours["monitor drift"] |= {
        "ONTIME_JOURNAL_URL": f"sqlite:///{pipeline.path}/journal.db",
        "MLFLOW_TRACKING_URI": f"sqlite:///{pipeline.path}/mlflow.db",
        "ONTIME_DRIFT_MINUTES": "0.5",
        "ONTIME_DRIFT_WINDOW_HOURS": "0.04",  # whole after two minutes
        "ONTIME_DRIFT_REGISTRY_SECONDS": "1",
        "ONTIME_DRIFT_REPORTS": str(site.folder / "reports"),
    }
    ours["monitor receiver"]["ONTIME_RECEIVER_RETRAIN_COMMAND"] = "true"
    cadvisor = int(targets["cadvisor:8080"].split(":")[1])
    with exporter(cadvisor), pytest.MonkeyPatch.context() as patch:
        patch.chdir(pipeline.path)  # MLflow puts the artifacts of a new experiment into the working directory
        with started(site.commands(), ours):
            patch.undo()
            yield site


@contextmanager
def coming_in(service: str, day: Day) -> Iterator[None]:
    """Send a day's flights and outcomes over and over until the block ends."""
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            asyncio.run(replay(service, [day], 7 * DAY_SECONDS, {}))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def prometheus(site: Site, service: str, pipeline: Clone) -> Iterator[Prometheus]:
    """Prometheus after two days of November have been replayed, and while flights are still coming in."""
    api = Prometheus(site.targets["prometheus:9090"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pipeline.path)
        two_days = days(date(2013, 11, 1), date(2013, 11, 2))
    asyncio.run(replay(service, two_days, 7 * DAY_SECONDS, {}))
    httpx.get(f"{service}/nowhere")
    with coming_in(service, two_days[0]):
        for last in ("live_log_loss", "drift_feature_psi", "job_slo:error_budget_left:ratio"):
            wait_for(f"a value of {last}", functools.partial(api.query, last), WAIT_SECONDS)
        yield api


def finite(series: list[dict[str, Any]]) -> bool:
    """Return whether some value is a number."""
    return any(math.isfinite(float(one["value"][1])) for one in series)


@pytest.mark.parametrize("name", ALL_PANELS)
def test_every_query_of_a_panel_has_an_answer(name: str, prometheus: Prometheus) -> None:
    for target in ALL_PANELS[name]["targets"]:
        series = prometheus.query(fill(target["expr"], rate_interval="60s"))
        assert series, f"{target['expr']}: empty"
        assert finite(series), f"{target['expr']}: only NaN"
        assert len(series) <= 100


@pytest.mark.parametrize("uid", boards())
def test_variables_and_annotations_have_an_answer(uid: str, prometheus: Prometheus) -> None:
    board = boards()[uid]
    for variable in board["templating"]["list"][1:]:
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
        assert match
        assert all(match[2] in one["metric"] for one in prometheus.query(match[1]))
    deployments, firing = board["annotations"]["list"]
    (loaded,) = prometheus.query(deployments["expr"])
    assert float(loaded["value"][1]) / 1000 == pytest.approx(time.time(), abs=3600)
    assert loaded["metric"]["version"] == "1"
    prometheus.query(firing["expr"])


def test_rules_read_series_that_are_there(prometheus: Prometheus) -> None:
    groups = prometheus.get("rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    for rule in ALL_RULES:
        if "record" in rule:
            assert finite(prometheus.query(rule["record"])), rule["record"]
        for read in reads(rule["expr"]):
            assert prometheus.query(f"{{__name__='{read.metric}'}}"), f"{rule.get('alert')}: {read.metric}"


def test_what_fires_has_its_texts(prometheus: Prometheus) -> None:
    alerts = prometheus.get("alerts")["alerts"]
    firing = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
    assert "Watchdog" in firing
    for alert in alerts:
        assert not [text for text in alert["annotations"].values() if "<error" in text or "<no value>" in text]
        assert alert["annotations"]["runbook_url"].startswith("https://")


def test_every_metric_is_one_that_is_scraped(prometheus: Prometheus) -> None:
    live = set(prometheus.get("label/__name__/values"))
    expressions = [fill(target["expr"]) for panel in ALL_PANELS.values() for target in panel["targets"]]
    expressions += [rule["expr"] for rule in ALL_RULES]
    used = {read.metric for expr in expressions for read in reads(expr)}
    assert used <= live
    containers = {name for name in used if name.startswith("container_")}
    assert containers <= set(COUNTERS) | set(GAUGES) | {"container_last_seen"}


def test_containers_and_registry_are_seen_by_name(prometheus: Prometheus) -> None:
    found = prometheus.query('count by (name) (container_last_seen{job="cadvisor",name=~".+"})')
    assert {one["metric"]["name"] for one in found} == set(CONTAINERS)
    (info,) = prometheus.query('registry_alias_info{alias="production"}')
    assert info["metric"]["version"] == "1"
    assert not prometheus.query("model_info unless on (name, alias, version) registry_alias_info")


@pytest.mark.parametrize("target", ["api:8000", "drift:8001", "receiver:8002"])
def test_our_metrics_pass_promtool(target: str, site: Site, prometheus: Prometheus) -> None:
    assert prometheus.query("up")
    text = httpx.get(f"http://{site.targets[target]}/metrics").text
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_mlflow_has_the_drift_run_and_its_report(site: Site, pipeline: Clone) -> None:
    assert list((site.folder / "reports").glob("drift-*.html"))
    mlflow = MlflowClient(f"sqlite:///{pipeline.path}/mlflow.db")
    experiment = mlflow.get_experiment_by_name("flight-delay-monitoring")
    assert experiment is not None
    run = mlflow.search_runs([experiment.experiment_id])[0]
    assert run.data.tags["model_version"] == "1" and "score_psi" in run.data.metrics
