"""`on-time monitor pictures`: draw the dashboards from Prometheus's data, for the documentation."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import matplotlib
import numpy as np
import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from app.errors import OnTimeError
from ops.docs.pictures.image import shrink
from ops.monitoring.dashboards.board import Board, Panel, load
from ops.monitoring.dashboards.build import to_json

OUT_DIR = Path("docs/boards")
STEPS = 240
"""Points of a line."""
COLUMNS, UNIT_INCHES, WIDTH_INCHES, MOST_LEGENDS = 24, 0.32, 15.0, 8
DAY_SECONDS = 86400
NO_DATA = "no data"
SUFFIXES = {"s": "s", "bytes": "B", "Bps": "B/s", "pps": "/s", "reqps": "req/s", "cps": "/s", "x": "x"}


class PrometheusFailed(OnTimeError):
    """Prometheus is unreachable or rejects a query."""


def fill(query: str, rate_interval: str) -> str:
    """Return a panel's query with Grafana's variables replaced: every job, every container."""
    return re.sub(r"\$(job|container)\b", ".+", query.replace("$__rate_interval", rate_interval))


def text(value: float, unit: str) -> str:
    """Return a value with one of Grafana's units."""
    if unit == "percentunit":
        return f"{value:.1%}"
    if unit == "s" and value >= DAY_SECONDS:
        return f"{value / DAY_SECONDS:.3g} d"
    suffix = SUFFIXES.get(unit, "")
    return f"{value:.3g} {suffix}" if unit != "s" and abs(value) < 1000 else EngFormatter(suffix, places=1)(value)


@dataclass(frozen=True)
class Source:
    """A Prometheus, and the period to draw in seconds since 1970."""

    address: str
    start: float
    end: float

    def _get(self, path: str, **data: Any) -> Any:
        try:
            answer = httpx.request("POST" if data else "GET", f"http://{self.address}/api/v1/{path}", data=data or None)
        except httpx.HTTPError as err:
            start = "Start one by `on-time monitor local` or `make stack`."
            raise PrometheusFailed(f"{self.address}: {err!r}. {start}") from err
        if answer.status_code != 200:
            raise PrometheusFailed(f"{data.get('query', path)}: {answer.text[:300]}")
        return answer.json()["data"]

    def rate_interval(self) -> str:
        """Return Grafana's value of $__rate_interval: at least four scrapes."""
        scrape = yaml.safe_load(self._get("status/config")["yaml"])["global"]["scrape_interval"]
        seconds = pd.Timedelta(scrape).total_seconds()
        return f"{max(4 * seconds, (self.end - self.start) / STEPS + seconds):.0f}s"

    def series(self, query: str, legend: str) -> pd.DataFrame:
        """Return the values of a query over the period: a column for each series, named by its legend and labels."""
        step = (self.end - self.start) / STEPS
        moments = pd.to_datetime(np.linspace(self.start, self.end, STEPS + 1), unit="s")
        frame = pd.DataFrame(index=moments)
        for one in self._get("query_range", query=query, start=self.start, end=self.end, step=step)["result"]:
            places = [round((float(moment) - self.start) / step) for moment, _ in one["values"]]
            values = pd.Series([float(value) for _, value in one["values"]], moments[places])
            frame[_named(legend, one["metric"]), json.dumps(one["metric"])] = values
        return frame

    def of(self, panel: Panel, interval: str) -> pd.DataFrame:
        """Return the series of all queries of a panel, in their order, without those that have no value."""
        found = [self.series(fill(query, interval), legend) for legend, query in panel.queries.items()]
        return pd.concat(found, axis=1).replace([np.inf, -np.inf], np.nan).dropna(axis=1, how="all")


def _named(legend: str, labels: dict[str, str]) -> str:
    return re.sub(r"{{\s*(\w+)\s*}}", lambda part: labels.get(part[1], ""), legend)


def lines(ax: Axes, panel: Panel, found: pd.DataFrame) -> None:
    """Draw lines over time, limits dashed, stacked where the panel is."""
    limits = [column for column in found if any(re.fullmatch(name, column[0]) for name in panel.dashed)]
    others = found.drop(columns=limits)
    if panel.stacked:
        names = [name or panel.title for name, _ in others]
        ax.stackplot(others.index, others.fillna(0).to_numpy().T, labels=names, alpha=0.6)
    else:
        for column in others:
            ax.plot(others.index, others[column], label=column[0] or panel.title, linewidth=1.2)
    for column in limits:
        ax.plot(found.index, found[column], "--", color="tab:red", label=column[0], linewidth=1)
    ax.set_ylim(panel.low, panel.high)
    ax.yaxis.set_major_formatter(lambda value, _: text(value, panel.unit))
    ax.legend(*(part[:MOST_LEGENDS] for part in ax.get_legend_handles_labels()), fontsize=6, loc="upper left")


def heat(ax: Axes, panel: Panel, found: pd.DataFrame) -> None:
    """Draw the rate of each bucket over time; those of Prometheus are cumulative."""
    edges = {float(json.loads(labels)["le"]): found[name, labels] for name, labels in found}
    counts = np.diff(np.array([edges[edge].fillna(0) for edge in sorted(edges)]), axis=0, prepend=0)
    ax.pcolormesh(found.index, np.arange(len(edges)), np.where(counts > 0, counts, np.nan), cmap="viridis_r")
    names = [text(edge, panel.unit) if np.isfinite(edge) else "∞" for edge in sorted(edges)]
    ax.set_yticks(np.arange(len(edges))[::3], names[::3])


def bars(ax: Axes, panel: Panel, found: pd.DataFrame) -> None:
    """Draw the last value of each series as a bar."""
    last = found.ffill().iloc[-1].sort_values()
    drawn = ax.barh(range(len(last)), last, height=0.7)
    ax.bar_label(drawn, [text(value, panel.unit) for value in last], fontsize=6, padding=2)
    ax.set_yticks(range(len(last)), [name or panel.title for name, _ in last.index])
    ax.set_xlim(0, panel.high or 1.15 * last.max() or 1)
    ax.xaxis.set_visible(False)


def values(ax: Axes, panel: Panel, found: pd.DataFrame) -> None:
    """Write the last value of each series."""
    ax.axis("off")
    texts = [f"{name} {text(value, panel.unit)}".strip() for (name, _), value in found.ffill().iloc[-1].items()]
    ax.text(0.5, 0.5, "\n".join(texts), transform=ax.transAxes, ha="center", va="center", fontsize=12)


def rows(ax: Axes, panel: Panel, found: pd.DataFrame) -> None:
    """Write the labels of each series that has a value at the end as a row."""
    labels = [json.loads(one) for _, one in found.columns[found.iloc[-1].notna()]]
    texts = sorted({tuple(one.get(name, "")[:24] for name in panel.columns) for one in labels})
    ax.axis("off")
    if texts:
        table = ax.table(cellText=[*texts], colLabels=panel.columns, loc="upper center", cellLoc="left")
        table.auto_set_font_size(False)
        table.set_fontsize(7)


def timeline(ax: Axes, _: Panel, found: pd.DataFrame) -> None:
    """Draw when each series was there."""
    ax.pcolormesh(found.index, np.arange(found.shape[1]), found.to_numpy().T, cmap="RdYlGn", vmin=0, vmax=1)
    ax.set_yticks(range(found.shape[1]), [name for name, _ in found])


DRAW = {"timeseries": lines, "stat": values, "bargauge": bars, "heatmap": heat, "table": rows, "timeline": timeline}


def draw(board: Board, source: Source) -> Figure:
    """Return the picture of a board, with the panels positioned as in Grafana."""
    placed, interval = json.loads(to_json(board))["panels"], source.rate_interval()
    height = 2 + max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in placed)
    figure = Figure(figsize=(WIDTH_INCHES, height * UNIT_INCHES), dpi=80)
    span = " to ".join(time.strftime("%F %H:%M", time.gmtime(moment)) for moment in (source.start, source.end))
    figure.suptitle(f"{board.title}, {span} UTC", fontsize=13, y=1 - 0.5 / height)
    panels = {panel.title: panel for row in board.rows for panel in row.panels}
    for one in placed:
        x, y, w, h = (one["gridPos"][key] for key in "xywh")
        if one["type"] == "row":
            figure.text(0.01, 1 - (y + 2.5) / height, one["title"], fontweight="bold")
            continue
        ax = figure.add_axes(((x + 1.6) / COLUMNS, 1 - (y + h + 1) / height, (w - 2) / COLUMNS, (h - 2.2) / height))
        ax.set_title(one["title"], fontsize=9, loc="left")
        ax.tick_params(labelsize=6)
        panel = panels[one["title"]]
        found = source.of(panel, interval)
        if found.empty:
            ax.axis("off")
            ax.text(0.5, 0.5, NO_DATA, transform=ax.transAxes)
        else:
            DRAW[panel.kind](ax, panel, found)
    return figure


def draw_all(prometheus: str, minutes: float, until: float | None, boards: Sequence[str]) -> None:
    """Draw these dashboards, or all of them, over the minutes until now or another time (seconds since 1970).

    The picture of a board stays as it is if most of its panels have no data, as without cAdvisor.
    """
    end = until or time.time()
    source = Source(prometheus, end - 60 * minutes, end)
    matplotlib.rcParams["date.converter"] = "concise"
    for board in load():
        if not boards or board.uid in boards:
            file, figure = OUT_DIR / f"{board.uid}.png", draw(board, source)
            empty = [any(text.get_text() == NO_DATA for text in ax.texts) for ax in figure.get_axes()]
            if 2 * sum(empty) > len(empty):
                print(f"{file} stays as it is: {sum(empty)} of {len(empty)} panels have no data.")
                continue
            figure.savefig(file)
            shrink(file)
