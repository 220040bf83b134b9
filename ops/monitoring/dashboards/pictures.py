"""`on-time monitor pictures`: what the boards show of the last minutes, as images, where no Grafana runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from ops.monitoring.dashboards.answers import Series, Source
from ops.monitoring.dashboards.build import FIRING, to_json
from ops.monitoring.dashboards.draw import COLOURS, DRAW, GREY, legend_rows
from ops.monitoring.dashboards.files import BOARDS
from ops.monitoring.dashboards.panel import Board, Panel

OUT_DIR = Path("docs/boards")
WIDTH, UNIT = 15.0, 0.32
"""Inches: the width of a picture, and the height of one unit of Grafana's grid."""
COLUMNS, HEAD = 24, 2
DPI, PALETTE = 100, 128


def places(board: Board) -> Iterator[tuple[Panel | str, dict[str, int]]]:
    """Yield each panel, or the title of a row, with its place in the grid, as the committed board has it."""
    waiting = [panel for row in board.rows for panel in row.panels]
    for placed in json.loads(to_json(board))["panels"]:
        yield (placed["title"] if placed["type"] == "row" else waiting.pop(0)), placed["gridPos"]


def _margins(panel: Panel, found: list[Series]) -> tuple[float, float, float]:
    """Return the room left of, right of and below the axes, in units of the grid."""
    named = max((len(series.legend) for series in found), default=0)
    left = {"bargauge": 0.5 + 0.088 * named, "timeline": 0.5 + 0.088 * named, "stat": 0.4, "table": 0.4}
    return left.get(panel.kind, 1.1), 1.3 if panel.kind == "bargauge" else 0.5, 0.85 + 0.42 * legend_rows(panel, found)


def _panel(figure: Figure, panel: Panel, place: dict[str, int], height: int, found: list[Series]) -> Axes:
    """Add a panel: a white card with its title, and inside it the axes."""
    x, y, w, h = (place[key] for key in "xywh")
    bottom = 1 - (y + HEAD + h) / height
    card = Rectangle((x / COLUMNS + 0.003, bottom + 0.1 / height), w / COLUMNS - 0.006, (h - 0.2) / height)
    card.set(transform=figure.transFigure, facecolor="white", edgecolor="#e5e7eb", zorder=-1)
    figure.add_artist(card)
    figure.text(
        (x + 0.3) / COLUMNS, bottom + (h - 0.65) / height, panel.title, fontsize=9, fontweight="bold", va="center"
    )
    left, right, below = _margins(panel, found)
    size = (w - left - right) / COLUMNS, (h - 1.3 - below) / height
    ax = figure.add_axes(((x + left) / COLUMNS, bottom + below / height, *size))
    for side in ax.spines.values():
        side.set_visible(False)
    if any(np.isfinite(series.values).any() for series in found):
        DRAW[panel.kind](ax, panel, found)
    else:
        ax.axis("off")
        ax.text(0.5, 0.5, "no data", transform=ax.transAxes, ha="center", va="center", fontsize=12, color=GREY)
    return ax


def begins(source: Source) -> list[float]:
    """Return when alerts began to fire."""
    moments: set[float] = set()
    for series in source.ask(FIRING, "{{alertname}}"):
        there = np.isfinite(series.values)
        moments |= set(series.times[there & ~np.concatenate([[False], there[:-1]])])
    return sorted(moments)


def draw(board: Board, source: Source) -> Figure:
    """Return the picture of a board; where an alert began to fire, a red line crosses the panels with time."""
    height = HEAD + max(place["y"] + place["h"] for _, place in places(board))
    figure = plt.figure(figsize=(WIDTH, height * UNIT), facecolor="#f3f4f6")
    line = 1 - 1.0 / height
    figure.text(0.01, line, board.title, fontsize=15, fontweight="bold", va="center")
    span = [time.strftime("%F %H:%M", time.gmtime(t)) for t in (source.start, source.end)]
    figure.text(0.99, line, f"{span[0]} to {span[1]} UTC", fontsize=9, color=GREY, va="center", ha="right")
    interval, marks = source.rate_interval(), begins(source)
    for item, place in places(board):
        if isinstance(item, str):
            y = 1 - (place["y"] + HEAD + 0.5) / height
            figure.text(0.01, y, item, fontsize=11, fontweight="bold", color="#1f4e9e", va="center")
            continue
        ax = _panel(figure, item, place, height, source.of(item, interval))
        if item.kind == "timeseries":
            for mark in marks:
                ax.axvline(mark / 86400, color=COLOURS["red"], linewidth=0.6, alpha=0.35)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a picture with few colours, which keeps the file small, and close it."""
    figure.canvas.draw()
    pixels: Any = figure.canvas.buffer_rgba()  # type: ignore[attr-defined]
    image = Image.fromarray(np.asarray(pixels)).convert("RGB").quantize(PALETTE)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)
    plt.close(figure)
    return path


def draw_all(prometheus: str, minutes: float, until: float | None, boards: Sequence[str]) -> None:
    """Draw these boards, or all of them, over the minutes until now or another time (seconds since 1970)."""
    end = until or time.time()
    matplotlib.use("agg")
    plt.rcParams["figure.dpi"] = DPI
    source = Source(prometheus, end - 60 * minutes, end)
    for board in BOARDS:
        if not boards or board.uid in boards:
            print(save(draw(board, source), OUT_DIR / f"{board.uid}.png"))
