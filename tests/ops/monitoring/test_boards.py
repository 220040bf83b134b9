"""The committed dashboards follow the rules of grafana/dashboard-linter, and read metrics that exist."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.support.monitoring import PROMETHEUS, alerts, boards, panels, rules
from tests.support.promql import RATE_INTERVAL, RATES, fill, reads

GRAFANA = ROOT / "ops" / "monitoring" / "config" / "grafana"
ALL_BOARDS, ALL_PANELS = boards(), panels()
WITHOUT_JOB = {"ALERTS", "slo:error_budget:ratio"}  # made by rules over all jobs
FIXED_RANGES = {  # a panel whose title or description promises a fixed time
    "on-time-service: Inference time",
    "on-time-model: Reloads",
    "on-time-containers: Out-of-memory kills",
    "on-time-monitoring: Retraining requests",
}
COUNTER = re.compile(r"_(total|bucket|count|sum)$")
EXPORTED = re.compile(r"(up|ALERTS|(node|container|machine|probe|scrape|process|prometheus|alertmanager)_\w+)$")
"""Metrics of Prometheus, its exporters and client libraries; tests/system/test_monitoring_live.py has their answers."""
OWN = set(re.findall(r"^\| `(\w+)` ", (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8"), re.MULTILINE))
RECORDED = {rule["record"] for rule in rules() if "record" in rule}

each_board = pytest.mark.parametrize("board", ALL_BOARDS.values(), ids=ALL_BOARDS)
each_panel = pytest.mark.parametrize("name", ALL_PANELS)


def violations(query: str, fixed_range: bool = False) -> list[str]:
    """Return what is wrong with a query of a panel; raise ValueError if it is not PromQL."""
    found = []
    for read in reads(fill(query)):
        base = re.sub("_(bucket|count|sum)$", "", read.metric)
        if not {read.metric, base} & (OWN | RECORDED) and not EXPORTED.match(read.metric):
            found.append(f"{read.metric} does not exist")
        if "job" not in read.labels and read.metric not in WITHOUT_JOB:
            found.append(f"{read.metric} has no job matcher")
        if COUNTER.search(read.metric) and ":" not in read.metric and read.function not in RATES:
            found.append(f"{read.metric} is a counter without a rate")
        if read.function in RATES and read.seconds != RATE_INTERVAL and not fixed_range:
            found.append(f"{read.metric} is not over $__rate_interval")
    return found


@each_board
def test_board_identity_links_and_variables(board: dict[str, Any]) -> None:
    assert re.fullmatch(r"on-time-[a-z]+", board["uid"])
    assert board["title"].startswith("On-time / ") and board["description"]
    assert board["editable"] is False
    assert board["refresh"] == "30s"  # not faster than the data: a scrape takes place every 15 s
    to_boards, to_mlflow = board["links"]
    assert all(set(to_boards["tags"]) & set(other["tags"]) for other in ALL_BOARDS.values())
    assert to_mlflow["url"].startswith("http")
    assert [mark["name"] for mark in board["annotations"]["list"]] == ["Deployments", "Firing alerts"]
    assert all(reads(mark["expr"]) for mark in board["annotations"]["list"])
    source, *others = board["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert others, "job, or container"
    for variable in others:
        assert variable["refresh"] == 2 and variable["allValue"] == ".+"
        assert variable["datasource"]["uid"] == "${datasource}"
        inner = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"])
        assert inner and reads(inner[1])


@each_board
def test_panels_do_not_overlap(board: dict[str, Any]) -> None:
    cells: list[tuple[int, int]] = []
    for panel in board["panels"]:
        x, y, width, height = (panel["gridPos"][key] for key in "xywh")
        cells += itertools.product(range(x, x + width), range(y, y + height))
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    for key in ("id", "title"):
        assert len({panel[key] for panel in board["panels"]}) == len(board["panels"])


@each_panel
def test_panel_has_description_unit_and_legends(name: str) -> None:
    panel = ALL_PANELS[name]
    assert len(panel["description"]) > 30
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["fieldConfig"]["defaults"]["unit"]
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert steps[0].get("value") is None
    assert (80, "red") not in {(step.get("value"), step["color"]) for step in steps}, "the editor's default"
    legends = [target["legendFormat"] for target in panel["targets"]]
    assert len(legends) == len(set(legends)) and (all(legends) or panel["type"] in ("stat", "table"))
    assert len({target["refId"] for target in panel["targets"]}) == len(legends)
    known = {rule["alert"] for rule in alerts()} | {"MLflow"}
    assert set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b", panel["description"])) <= known


@each_panel
def test_panel_queries_follow_the_rules(name: str) -> None:
    panel = ALL_PANELS[name]
    assert panel["targets"]
    for target in panel["targets"]:
        assert not violations(target["expr"], name in FIXED_RANGES)
    columns = [
        t["options"]["include"]["names"] for t in panel.get("transformations", []) if t["id"] == "filterFieldsByName"
    ]
    for link in panel["fieldConfig"]["defaults"].get("links", []):
        assert set(re.findall(r"\$\{__data\.fields\.(\w+)\}", link["url"])) <= set(columns[0])


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ('sum(rate(http_requests_total{job="a"}[$__rate_interval]))', None),
        ('sum(http_requests_total{job="a"})', "is a counter without a rate"),
        ('rate(http_requests_total{job="a"}[1m])', "is not over"),
        ("max(model_loaded_timestamp_seconds)", "has no job matcher"),
        ('model_load_timestamp_seconds{job="a"}', "does not exist"),
    ],
)
def test_each_rule_can_fail(query: str, reason: str | None) -> None:
    found = violations(query)
    assert len(found) == (reason is not None) and all(str(reason) in text for text in found)


def test_invalid_promql_is_an_error() -> None:
    with pytest.raises(ValueError, match="instant|range|expected"):
        reads("sum(pyrra_requests:rate5m[5m])")


def test_grafana_is_provisioned_from_these_files() -> None:
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    interval = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert (source["uid"], source["editable"], source["jsonData"]["timeInterval"]) == ("prometheus", False, interval)
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/boards.yml").read_text())["providers"][0]
    assert (provider["allowUiUpdates"], provider["disableDeletion"]) == (False, True)
    assert Path(provider["options"]["path"]).name == "dashboards"
