"""The pictures of the boards: every panel's queries are sent, and what Prometheus answers is drawn."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pytest
from matplotlib.figure import Figure

from ops.monitoring.dashboards import pictures
from ops.monitoring.dashboards.board import Board, Panel, load
from ops.monitoring.dashboards.pictures import PrometheusFailed, Source

START, END = 1_000_000.0, 1_000_600.0
LABELS = {"le": "0.1", "job": "api", "slo": "latency", "feature": "a", "version": "1", "alertname": "ApiDown"}


@dataclass
class Prometheus:
    """A server with Prometheus's API: the queries that it got, and the series that it answers each of them with."""

    address: str = ""
    queries: list[str] = field(default_factory=list)
    series: list[dict[str, str]] = field(default_factory=lambda: [LABELS, LABELS | {"le": "+Inf", "job": "drift"}])
    status: int = 200

    def answer(self, path: str, form: dict[str, list[str]]) -> object:
        """Return the data of an answer."""
        if path.endswith("config"):
            return {"yaml": "global: {scrape_interval: 15s}"}
        self.queries += form["query"]
        moments = np.arange(START, END + 1, float(form["step"][0]))
        values = [[t, "NaN" if t == START else str(0.5 + 0.4 * math.sin(t / 60))] for t in moments]
        return {"result": [{"metric": labels, "values": values} for labels in self.series]}


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    """A running server."""
    made = Prometheus()

    class Handler(BaseHTTPRequestHandler):
        """Answers in Prometheus's format."""

        def do_GET(self) -> None:  # pylint: disable=invalid-name
            """Answer a request with or without a form."""
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            answer = json.dumps({"data": made.answer(self.path, parse_qs(body))}).encode()
            self.send_response(made.status)
            self.end_headers()
            self.wfile.write(answer if made.status == 200 else b"parse error")

        do_POST = do_GET

        def log_message(self, *_: object) -> None:  # pylint: disable=arguments-differ
            """Write no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    made.address = f"127.0.0.1:{server.server_port}"
    yield made
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("board", load(), ids=lambda board: board.uid)
def test_a_picture_has_every_panel_and_the_answer_to_every_query(board: Board, prometheus: Prometheus) -> None:
    figure = pictures.draw(board, Source(prometheus.address, START, END))
    panels = [panel for row in board.rows for panel in row.panels]
    assert set(prometheus.queries) == {
        pictures.fill(query, "60s") for panel in panels for query in panel.queries.values()
    }
    assert not [query for query in prometheus.queries if "$__" in query or "$job" in query or "$container" in query]
    assert {ax.get_title("left") for ax in figure.get_axes()} == {panel.title for panel in panels}
    assert {text.get_text() for text in figure.texts} >= {row.title for row in board.rows}
    assert all(ax.lines or ax.collections or ax.patches or ax.tables or ax.texts for ax in figure.get_axes())
    assert "no data" not in {text.get_text() for ax in figure.get_axes() for text in ax.texts}


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.9953, "percentunit", "99.5%"),
        (0.00042, "s", "420.0 µs"),
        (864000, "s", "10 d"),
        (12, "reqps", "12 req/s"),
        (6010, "short", "6.0 k"),
    ],
)
def test_numbers_have_their_unit(value: float, unit: str, expected: str) -> None:
    assert pictures.text(value, unit) == expected


def test_a_panel_without_an_answer_is_marked(prometheus: Prometheus, tmp_path: Path) -> None:
    prometheus.series = []
    figure = pictures.draw(load()[0], Source(prometheus.address, START, END))
    figure.savefig(tmp_path / "board.png")
    assert [text.get_text() for ax in figure.get_axes() for text in ax.texts] == ["no data"] * len(figure.get_axes())


@pytest.mark.parametrize("answered", [True, False])
def test_the_picture_of_a_board_without_data_stays(
    prometheus: Prometheus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    monkeypatch.setattr(pictures, "OUT_DIR", tmp_path)
    prometheus.series = prometheus.series * answered
    pictures.draw_all(prometheus.address, 10, END, ["on-time-monitoring"])
    assert (tmp_path / "on-time-monitoring.png").exists() == answered


def test_rates_are_over_grafanas_interval(prometheus: Prometheus) -> None:
    assert Source(prometheus.address, START, END).rate_interval() == "60s"
    assert Source(prometheus.address, 0, 86400).rate_interval() == f"{86400 / pictures.STEPS + 15:.0f}s"


def test_missing_values_stay_gaps_and_legends_have_their_labels(prometheus: Prometheus) -> None:
    found = Source(prometheus.address, START, END).series("up", "{{job}} of {{ none }}")
    assert [name for name, _ in found] == ["api of ", "drift of "]
    assert found.iloc[0].isna().all() and found.iloc[1:].notna().all(axis=None)


def test_a_query_that_is_rejected_and_a_prometheus_that_is_down_are_named(prometheus: Prometheus) -> None:
    prometheus.status = 400
    with pytest.raises(PrometheusFailed, match=r"sum\(: parse error"):
        Source(prometheus.address, START, END).series("sum(", "")
    with pytest.raises(PrometheusFailed, match="on-time monitor local"):
        Source("127.0.0.1:1", START, END).series("up", "")


def test_limits_are_dashed_and_buckets_are_not_cumulative(prometheus: Prometheus) -> None:
    source = Source(prometheus.address, START, END)
    panel = Panel(title="", description="", unit="s", queries={"a": "a", "limit, low": "b"}, dashed=("limit.*",))
    ax = Figure().add_subplot()
    pictures.lines(ax, panel, source.of(panel, "60s"))
    assert [line.get_linestyle() for line in ax.get_lines()] == ["-", "-", "--", "--"]
    ax = Figure().add_subplot()
    pictures.heat(ax, panel, source.series("a", ""))
    (mesh,) = ax.collections
    lower, upper = np.ma.filled(mesh.get_array(), 0)
    assert lower[1] > 0.1 and not upper.any(), "both buckets have the same cumulative count"
