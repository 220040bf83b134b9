"""Prometheus's configuration, rules and alerts, and Alertmanager's routes, by their own tools."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from ops.monitoring.alert_receiver import ReceiverSettings
from tests.conftest import ROOT
from tests.support.monitoring import ALERTMANAGER, PROMETHEUS, alerts, needs, passes, rules

TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
ALERTS = alerts()
ROUTES = {
    "alertname=ApiDown severity=page job=api": "on-call",
    "alertname=DiskFilling severity=ticket": "team",
    "alertname=CalibrationOff severity=ticket action=retrain": "retraining,team",
    "alertname=Watchdog severity=none": "dead-mans-switch",
    "alertname=SomethingNew": "team",
}


@needs("promtool")
def test_prometheus_accepts_configuration_and_rules() -> None:
    assert "SUCCESS" in passes("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    passes("promtool", "check", "rules", "--lint=all", "--lint-fatal", *(PROMETHEUS / "rules").glob("*.yml"))


@pytest.mark.long
@needs("promtool")
@pytest.mark.parametrize("file", TESTS, ids=[file.stem for file in TESTS])
def test_alerts_fire_stay_silent_and_resolve(file: Path) -> None:
    passes("promtool", "test", "rules", file)


@needs("promtool")
def test_a_threshold_that_is_moved_fails_the_tests(tmp_path: Path) -> None:
    for folder in ("rules", "tests"):
        (tmp_path / folder).mkdir()
    content = (PROMETHEUS / "rules" / "containers.yml").read_text()
    assert content.count("> 0.95") == 1
    (tmp_path / "rules" / "containers.yml").write_text(content.replace("> 0.95", "> 0.93"))
    (tmp_path / "tests" / "t.yml").write_text((PROMETHEUS / "tests" / "containers.yml").read_text())
    command = ["promtool", "test", "rules", tmp_path / "tests" / "t.yml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "ContainerMemoryFull" in done.stderr + done.stdout


@dataclass(frozen=True)
class Case:
    """One check of one alert: which test it belongs to, how many label sets are in its input, and how many fire."""

    test: str
    inputs: int
    firing: int


def cases() -> dict[str, list[Case]]:
    """Return the checks by alert, in order of time within a test."""
    found = defaultdict(list)
    for file in TESTS:
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            for check in test["promql_expr_test"]:
                match = re.fullmatch(
                    r'count by \((.*)\) \(ALERTS{alertname="(\w+)",alertstate="firing"}\)', check["expr"]
                )
                assert match and match[2] == test["name"].split(":")[0]
                labels = [re.compile(rf'\b{label}="([^"]*)"') for label in match[1].split(", ")]
                inputs = {
                    tuple(map(str, (x.findall(item["series"]) for x in labels))) for item in test["input_series"] or []
                }
                found[match[2]].append(Case(test["name"], len(inputs), len(check["exp_samples"])))
    return found


@pytest.mark.parametrize("alert", [rule["alert"] for rule in ALERTS if rule["alert"] != "Watchdog"])
def test_every_alert_fires_stays_silent_and_resolves(alert: str) -> None:
    checks = cases()[alert]
    first = next(i for i, case in enumerate(checks) if case.firing)
    assert checks[first + 1].test == checks[first].test and not checks[first + 1].firing, "resolves"
    silent = any(not case.firing for i, case in enumerate(checks) if i < first or case.test != checks[first].test)
    assert silent or checks[first].firing < checks[first].inputs, "a case that does not fire"


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_every_alert_says_where_help_is(rule: dict[str, Any]) -> None:
    labels, notes = rule["labels"], rule["annotations"]
    assert labels["severity"] in ("page", "ticket", "none")
    assert notes["summary"] and notes["description"]
    page, anchor = notes["runbook_url"].removeprefix("{{ $externalLabels.docs }}/").split("#")
    headings = re.findall(r"^## (.*)$", (ROOT / "docs" / page).read_text(), re.M)
    assert anchor in {re.sub(r"[^\w-]", "", heading.lower()) for heading in headings}
    uid = notes["dashboard_url"].removeprefix("{{ $externalLabels.grafana }}/d/")
    assert (ROOT / "ops" / "monitoring" / "config" / "grafana" / "dashboards" / f"{uid}.json").exists()


def test_alerts_and_records_have_their_own_names() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9_]+", r["record"]) for r in rules() if "record" in r)


@needs("amtool")
def test_alertmanager_accepts_its_configuration() -> None:
    passes("amtool", "check-config", ALERTMANAGER / "alertmanager.yml")


@needs("amtool")
@pytest.mark.parametrize("labels", ROUTES)
def test_an_alert_reaches_its_receiver(labels: str) -> None:
    command = ["amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}/alertmanager.yml"]
    passes(*command, f"--verify.receivers={ROUTES[labels]}", *labels.split())


@needs("amtool")
def test_the_test_of_routes_can_fail() -> None:
    command = ["amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}/alertmanager.yml"]
    command += ["--verify.receivers=team", "severity=page"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def test_the_watchdog_is_heard_three_times() -> None:
    route = yaml.safe_load((ALERTMANAGER / "alertmanager.yml").read_text())["route"]["routes"][0]
    heard, repeated = (pd.Timedelta(route[name]).total_seconds() for name in ("group_interval", "repeat_interval"))
    assert repeated < heard, "Alertmanager repeats at the first interval after this time, so an equal one takes two"
    assert 3 * heard <= ReceiverSettings().silence_seconds


def test_no_secret_is_in_the_configuration() -> None:
    text = (ALERTMANAGER / "alertmanager.yml").read_text()
    assert not re.search(r"\b(credentials|password|api_url|token|bearer_token):", text)
