"""The boards: regenerated without a difference, and linted by the rules of grafana/dashboard-linter and some more."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.monitoring.dashboards.board import load
from ops.monitoring.dashboards.build import to_json
from tests.conftest import ROOT
from tests.support.monitoring import PROMETHEUS, alerts, boards, panels
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

each_board = pytest.mark.parametrize("board", ALL_BOARDS.values(), ids=ALL_BOARDS)
each_panel = pytest.mark.parametrize("name", ALL_PANELS)


def queries(panel: dict[str, Any]) -> list[str]:
    """Return the queries of a panel."""
    return [target["expr"] for target in panel["targets"]]


def test_make_boards_would_change_nothing() -> None:
    assert {board.uid for board in load()} == set(ALL_BOARDS)
    for board in load():
        assert (GRAFANA / "dashboards" / f"{board.uid}.json").read_text(encoding="utf-8") == to_json(board)


@each_board
def test_a_board_has_an_identity_and_cannot_be_edited(board: dict[str, Any]) -> None:
    assert re.fullmatch(r"on-time-[a-z]+", board["uid"])
    assert board["title"].startswith("On-time / ") and board["description"]
    assert board["editable"] is False
    assert board["refresh"] == "30s"  # no faster than the data: a scrape takes place every 15 s


@each_board
def test_the_data_source_is_a_variable_and_lists_follow_the_time_range(board: dict[str, Any]) -> None:
    first, *others = board["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    assert others, "job, or container"
    for variable in others:
        assert variable["refresh"] == 2 and variable["allValue"] == ".+"
        assert variable["datasource"]["uid"] == "${datasource}"
        inner = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"])
        assert inner and reads(inner[1])


@each_board
def test_panels_do_not_overlap_and_fill_the_width(board: dict[str, Any]) -> None:
    cells = [
        (x, y)
        for panel in board["panels"]
        for pos in [panel["gridPos"]]
        for x, y in itertools.product(range(pos["x"], pos["x"] + pos["w"]), range(pos["y"], pos["y"] + pos["h"]))
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    titles = [panel["title"] for panel in board["panels"]]
    assert len(titles) == len(set(titles))


@each_board
def test_a_board_shows_deployments_and_alerts_and_leads_on(board: dict[str, Any]) -> None:
    assert [mark["name"] for mark in board["annotations"]["list"]] == ["Deployments", "Firing alerts"]
    assert all(reads(mark["expr"]) for mark in board["annotations"]["list"])
    to_boards, to_mlflow = board["links"]
    others = [other for other in ALL_BOARDS.values() if set(to_boards["tags"]) & set(other["tags"])]
    assert len(others) == len(ALL_BOARDS) and to_boards["keepTime"]
    assert to_mlflow["url"].startswith("http")


@each_panel
def test_a_panel_says_what_it_shows(name: str) -> None:
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


@each_panel
def test_an_alert_that_a_panel_speaks_of_exists(name: str) -> None:
    known = {rule["alert"] for rule in alerts()}
    named = set(re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)+\b", ALL_PANELS[name]["description"])) - {"MLflow"}
    assert named <= known


@each_panel
def test_the_queries_of_a_panel_follow_the_rules(name: str) -> None:
    panel = ALL_PANELS[name]
    assert panel["targets"]
    for query in queries(panel):
        for read in reads(fill(query)):
            assert "job" in read.labels or read.metric in WITHOUT_JOB, f"{read.metric}: no job matcher"
            if COUNTER.search(read.metric) and ":" not in read.metric:
                assert read.function in RATES, f"{read.metric} is a counter"
            if read.function in RATES and name not in FIXED_RANGES:
                assert read.seconds == RATE_INTERVAL, f"{read.metric}: $__rate_interval"


def test_the_rules_can_fail() -> None:
    (raw,) = reads("sum(http_requests_total)")
    assert raw.function is None and COUNTER.search(raw.metric) and "job" not in raw.labels
    (fixed,) = reads('rate(http_requests_total{job="api"}[1m])')
    assert fixed.seconds == 60 != RATE_INTERVAL
    with pytest.raises(ValueError, match="instant|range|expected"):
        reads("sum(pyrra_requests:rate5m[5m])")


@pytest.mark.parametrize("name", [n for n, p in ALL_PANELS.items() if p["type"] == "table"])
def test_a_table_links_by_columns_that_it_has(name: str) -> None:
    panel = ALL_PANELS[name]
    columns = next(
        t["options"]["include"]["names"] for t in panel["transformations"] if t["id"] == "filterFieldsByName"
    )
    for link in panel["fieldConfig"]["defaults"].get("links", []):
        assert set(re.findall(r"\$\{__data\.fields\.(\w+)\}", link["url"])) <= set(columns)


def test_grafana_is_provisioned_from_these_files() -> None:
    source = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    interval = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert (source["uid"], source["editable"], source["jsonData"]["timeInterval"]) == ("prometheus", False, interval)
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/boards.yml").read_text())["providers"][0]
    assert (provider["allowUiUpdates"], provider["disableDeletion"]) == (False, True)
    assert Path(provider["options"]["path"]).name == "dashboards"
