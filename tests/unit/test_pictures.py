"""The pictures of the boards: every panel has its place, its answer and its limits in them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ops.monitoring.dashboards import answers, pictures, units
from ops.monitoring.dashboards.files import BOARDS
from ops.monitoring.dashboards.answers import NoAnswer, Series, Source
from ops.monitoring.dashboards.build import to_json
from ops.monitoring.dashboards.draw import colour, heat, lines
from ops.monitoring.dashboards.panel import Board, Panel, above, below

matplotlib.use("agg")
SOURCE = Source("127.0.0.1:1", 1_000_000.0, 1_000_600.0)
LABELS = {"le": "0.1", "job": "api", "slo": "latency", "feature": "carrier", "version": "1", "alertname": "ApiDown"}


def series(*values: float, **labels: str) -> Series:
    """Return a series of these values."""
    return Series("line", labels, np.linspace(SOURCE.start, SOURCE.end, len(values)), np.array(values))


@pytest.fixture
def prometheus(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[dict[str, Any]]], list[str]]:
    """Return a function that lets a Prometheus answer every query with these series, and returns what it is asked."""

    def answering(found: list[dict[str, Any]]) -> list[str]:
        asked: list[str] = []

        def post(_: str, data: dict[str, Any], timeout: float) -> httpx.Response:
            asked.append(data["query"])
            moments = np.arange(data["start"], data["end"], data["step"] or 1)
            values = [[t, str(0.5 + 0.4 * math.sin(t / 60))] for t in moments]
            result = [{"metric": one, "values": values} for one in found]
            return httpx.Response(200, json={"data": {"result": result}}, extensions={"timeout": timeout})

        config = {"data": {"yaml": "global: {scrape_interval: 15s}"}}
        monkeypatch.setattr(answers.httpx, "post", post)
        monkeypatch.setattr(answers.httpx, "get", lambda *_, **__: httpx.Response(200, json=config))
        return asked

    return answering


def test_the_interval_of_rates_is_grafanas(prometheus: Callable[[list[dict[str, Any]]], list[str]]) -> None:
    prometheus([])
    assert SOURCE.rate_interval() == "60s"
    assert Source("", 0, 86400).rate_interval() == f"{86400 / answers.STEPS + 15:.0f}s"


@pytest.mark.parametrize("board", BOARDS, ids=[board.uid for board in BOARDS])
def test_a_picture_asks_every_query_and_has_every_title(
    board: Board, tmp_path: Path, prometheus: Callable[[list[dict[str, Any]]], list[str]]
) -> None:
    asked = prometheus([LABELS, LABELS | {"le": "+Inf", "job": "drift"}])
    figure = pictures.draw(board, SOURCE)
    panels = [panel for row in board.rows for panel in row.panels]
    assert set(asked) >= {answers.fill(query, "60s") for panel in panels for query in panel.queries.values()}
    assert not [query for query in asked if "$__" in query or "$job" in query or "$container" in query]
    written = {text.get_text() for text in figure.texts}
    assert written >= {panel.title for panel in panels} | {row.title for row in board.rows} | {board.title}
    path = pictures.save(figure, tmp_path / "board.png")
    assert path.stat().st_size < 300_000
    with Image.open(path) as image:
        assert image.width == 1500 and len(image.convert("RGB").getcolors(2**24) or []) > 10


def test_panels_are_where_grafana_has_them() -> None:
    for board in BOARDS:
        placed = json.loads(to_json(board))["panels"]
        drawn = [item if isinstance(item, str) else item.title for item, _ in pictures.places(board)]
        assert drawn == [panel["title"] for panel in placed]


def test_a_panel_without_an_answer_says_so(prometheus: Callable[[list[dict[str, Any]]], list[str]]) -> None:
    prometheus([])
    figure = pictures.draw(BOARDS[0], SOURCE)
    said = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert said.count("no data") == sum(len(row.panels) for row in BOARDS[0].rows)


def test_a_query_that_prometheus_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers.httpx, "post", lambda *_, **__: httpx.Response(400, text="parse error"))
    with pytest.raises(NoAnswer, match=r"sum\(: parse error"):
        SOURCE.ask("sum(", "")
    monkeypatch.undo()
    with pytest.raises(NoAnswer, match="on-time monitor local"):
        SOURCE.ask("up", "")


def test_values_that_are_missing_stay_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [{"metric": {"job": "api"}, "values": [[1_000_000.0, "1"], [1_000_600.0, "NaN"]]}]
    body = {"data": {"result": answer}}
    monkeypatch.setattr(answers.httpx, "post", lambda *_, **__: httpx.Response(200, json=body))
    (found,) = SOURCE.ask("up", "{{job}} of {{ nobody }}")
    assert found.legend == "api of " and found.last == 1
    assert np.isfinite(found.values).sum() == 1 and len(found.values) == answers.STEPS + 1


def test_colours_are_those_of_the_steps() -> None:
    slow, up = Panel("", "", "s", {}, steps=above(0.25, 0.1)), Panel("", "", "s", {}, steps=below(0.995))
    names = {value: name for name, value in pictures.COLOURS.items()}
    assert [names[colour(slow, v)] for v in (0.0, 0.1, 0.24, 0.25)] == ["green", "orange", "orange", "red"]
    assert [names[colour(up, v)] for v in (-1, 0.99, 0.995)] == ["red", "red", "green"]


def test_limits_are_dashed_and_stacks_add_up() -> None:
    panel = Panel("", "", "short", {}, dashed=("line",), stacked=True)
    ax = Figure().add_subplot()
    lines(ax, panel, [series(3, 3, 3)])
    assert [line.get_linestyle() for line in ax.get_lines()] == ["--"]
    ax = Figure().add_subplot()
    lines(ax, Panel("", "", "short", {}, stacked=True), [series(1, 2, 1), series(3, 3, math.nan)])
    assert ax.get_ylim()[1] == pytest.approx(5 * 1.08)


def test_a_heatmap_shows_what_is_in_each_bucket() -> None:
    ax = Figure().add_subplot()
    heat(ax, Panel("", "", "s", {}), [series(3, 5, le="+Inf"), series(1, 1, le="0.1"), series(3, 4, le="0.5")])
    (image,) = ax.get_images()
    shown = np.ma.filled(image.get_array(), 0)
    assert shown.tolist() == [[1, 1], [2, 3], [0, 1]]


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.9953, "percentunit", "99.5 %"),
        (0.00042, "s", "420 µs"),
        (7200, "s", "2 h"),
        (3 * 2**20, "bytes", "3 MiB"),
        (2500, "Bps", "2.5 kB/s"),
        (12, "Bps", "12 B/s"),
        (12, "reqps", "12 req/s"),
        (6010, "short", "6.01k"),
        (1, "bool_on_off", "On"),
        (0, "bool_yes_no", "No"),
        (math.nan, "s", "no data"),
    ],
)
def test_numbers_have_their_unit(value: float, unit: str, expected: str) -> None:
    assert units.text(value, unit) == expected


def test_every_unit_of_a_panel_can_be_written() -> None:
    for board in BOARDS:
        for panel in (panel for row in board.rows for panel in row.panels):
            assert units.text(1234.5, panel.unit)
