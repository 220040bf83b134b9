"""One panel as a picture: the same data, limits and colours that Grafana shows, by matplotlib."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ops.monitoring.dashboards import units
from ops.monitoring.dashboards.answers import Numbers, Series
from ops.monitoring.dashboards.panel import Panel

COLOURS = {"green": "#3f8f3a", "orange": "#e07b00", "red": "#d62339", "blue": "#2f6fd6"}
LINES = ["#2f6fd6", "#e07b00", "#3f8f3a", "#8f3bb8", "#00838f", "#ad1457", "#6d4c41", "#546e7a", "#afb42b", "#5c6bc0"]
LEGEND = 6
"""Lines that a legend names."""
GREY = "#6b7280"
SMALL = 7


def colour(panel: Panel, value: float) -> str:
    """Return the colour of the step that a value has reached."""
    reached = [name for i, (least, name) in enumerate(panel.steps) if i == 0 or value >= least]
    return COLOURS[reached[-1]]


def _days(times: Numbers) -> Numbers:
    """Return moments as matplotlib has them: days since 1970."""
    return times / 86400


def _time_axis(ax: Axes, times: Numbers) -> None:
    first, last = _days(times)[[0, -1]]
    ax.set_xlim(first, last)
    ax.set_xticks(np.linspace(first, last, 6)[1:-1])
    ax.xaxis.set_major_formatter(lambda day, _: time.strftime("%H:%M:%S", time.gmtime(86400 * day)))
    ax.tick_params(labelsize=SMALL, length=0, colors=GREY)


def is_limit(panel: Panel, series: Series) -> bool:
    """Return whether a line is a limit and not a measurement."""
    return any(series.legend.startswith(name.removesuffix(".*")) for name in panel.dashed)


def _bounds(panel: Panel, low: float, high: float) -> tuple[float, float]:
    """Return the ends of the value axis: those of the panel, or a little beyond the values."""
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return (panel.low if panel.low is not None else low - room), (panel.high if panel.high is not None else high + room)


def lines(ax: Axes, panel: Panel, found: Sequence[Series]) -> None:
    """Draw lines over time, stacked where the panel says so, limits dashed."""
    moments = _days(found[0].times)
    shown = sorted(found, key=lambda s: (is_limit(panel, s), -np.nan_to_num(s.values).max()))
    bottom = np.zeros(len(moments))
    for i, series in enumerate(shown):
        name = f"{series.legend or 'value'}  {units.text(series.last, panel.unit)}" if i < LEGEND else None
        if is_limit(panel, series):
            ax.plot(moments, series.values, "--", color=COLOURS["red"], linewidth=1, label=name)
        elif panel.stacked:
            top = bottom + np.nan_to_num(series.values)
            ax.fill_between(moments, bottom, top, alpha=0.55, linewidth=0, color=LINES[i % 10], label=name)
            bottom = top
        else:
            ax.plot(moments, series.values, linewidth=1.2, color=LINES[i % 10], label=name)
    every = np.concatenate([bottom, [0]]) if panel.stacked else np.concatenate([s.values for s in shown])
    known = every[np.isfinite(every)]
    ax.set_ylim(*_bounds(panel, known.min(), known.max()))
    for value, name in panel.steps[1:]:
        if value <= ax.get_ylim()[1]:
            ax.axhline(value, color=COLOURS[name], linewidth=0.8, linestyle=(0, (4, 4)))
    ax.yaxis.set_major_formatter(lambda value, _: units.text(value, panel.unit))
    ax.grid(axis="y", color="#e5e7eb", linewidth=0.6)
    ax.set_axisbelow(True)
    _time_axis(ax, found[0].times)
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(-0.01, 0),
        borderaxespad=2.2,
        ncols=legend_columns(panel),
        fontsize=SMALL,
        frameon=False,
        handlelength=1.2,
        columnspacing=1.2,
        title=f"the first {LEGEND} of {len(shown)}" if len(shown) > LEGEND else None,
        title_fontsize=SMALL,
        alignment="left",
    )


def legend_columns(panel: Panel) -> int:
    """Return how many entries of a legend stand side by side."""
    return panel.width // 4


def legend_rows(panel: Panel, found: Sequence[Series]) -> int:
    """Return how many lines of text a legend takes below its panel."""
    if panel.kind != "timeseries":
        return 0
    return -(-min(len(found), LEGEND) // legend_columns(panel)) + (len(found) > LEGEND)


def numbers(ax: Axes, panel: Panel, found: Sequence[Series]) -> None:
    """Write the last value large, in the colour of its step, over its course."""
    ax.axis("off")
    for i, series in enumerate(found):
        middle, shade = (i + 0.5) / len(found), colour(panel, series.last)
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": shade, "fontweight": "bold"}
        size = 21 if len(found) == 1 else 14
        ax.text(middle, 0.62, units.text(series.last, panel.unit), transform=ax.transAxes, fontsize=size, **style)
        if len(found) > 1:
            ax.text(middle, 0.9, series.legend, transform=ax.transAxes, ha="center", fontsize=SMALL + 1, color=GREY)
        inner = ax.inset_axes((i / len(found) + 0.02, 0.02, 1 / len(found) - 0.04, 0.3))
        inner.axis("off")
        course = np.arange(len(series.values))
        inner.fill_between(course, series.values, np.nanmin(series.values), alpha=0.25, linewidth=0, color=shade)


def bars(ax: Axes, panel: Panel, found: Sequence[Series]) -> None:
    """Draw one bar for each series, the longest on top."""
    shown = sorted((s for s in found if np.isfinite(s.last)), key=lambda s: s.last)
    values = np.array([s.last for s in shown])
    ends = panel.high or values.max() or 1.0
    ax.barh(range(len(shown)), np.minimum(values, ends), color=[colour(panel, v) for v in values], height=0.7)
    ax.set_yticks(range(len(shown)), [s.legend or "value" for s in shown], fontsize=SMALL)
    for i, value in enumerate(values):
        ax.text(ends * 1.02, i, units.text(value, panel.unit), fontsize=SMALL, va="center", color="#111827")
    for value, name in panel.steps[1:]:
        if 0 < value < ends:
            ax.axvline(value, color=COLOURS[name], linewidth=0.8, linestyle=(0, (4, 4)))
    ax.set_xlim(0, ends)
    ax.set_ylim(-0.6, max(len(shown), 3) - 0.4)
    ax.set_xticks([])
    ax.tick_params(length=0, colors=GREY)


def heat(ax: Axes, panel: Panel, found: Sequence[Series]) -> None:
    """Draw how many fall into each bucket over time; Prometheus counts them cumulatively."""
    ordered = sorted(found, key=lambda s: float(s.labels["le"]))
    cumulative = np.array([np.nan_to_num(s.values) for s in ordered])
    counts = np.diff(cumulative, axis=0, prepend=0)
    edges = [units.text(float(s.labels["le"]), panel.unit) for s in ordered]
    first, last = _days(found[0].times)[[0, -1]]
    ax.imshow(
        np.where(counts > 1e-9, counts, np.nan),
        aspect="auto",
        origin="lower",
        cmap="viridis_r",
        interpolation="none",
        extent=(float(first), float(last), 0, len(ordered)),
    )
    every = max(1, len(edges) // 7)
    ax.set_yticks(np.arange(1, len(edges) + 1)[::every], ["∞" if e == "no data" else e for e in edges][::every])
    _time_axis(ax, found[0].times)


def table(ax: Axes, panel: Panel, found: Sequence[Series]) -> None:
    """Write the labels of each series as a row."""
    ax.axis("off")
    used = [name for name in panel.columns if any(s.labels.get(name) for s in found)]
    rows = sorted({tuple(_short(s.labels.get(name, "")) for name in used) for s in found})
    height = 0.9 / max(len(rows) + 1, 5)
    for i, row in enumerate([tuple(used), *rows[: int(1 / height)]]):
        look: dict[str, Any] = (
            {"color": GREY, "fontweight": "bold"} if i == 0 else {"color": "#111827", "fontweight": "normal"}
        )
        for j, cell in enumerate(row):
            at = j / len(used) + 0.01, 0.95 - (i + 0.5) * height
            ax.text(*at, cell, transform=ax.transAxes, fontsize=SMALL + 1, va="center", **look)


def _short(word: str) -> str:
    return word if len(word) <= 24 else f"{word[:8]}…{word[-6:]}"


def timeline(ax: Axes, panel: Panel, found: Sequence[Series]) -> None:
    """Draw when each series was there, in the colour of its value."""
    step = float(found[0].times[1] - found[0].times[0]) / 86400
    ordered = sorted(found, key=lambda s: s.legend, reverse=True)
    for i, series in enumerate(ordered):
        there = np.isfinite(series.values)
        moments = _days(series.times[there])
        colours = [colour(panel, v) for v in series.values[there]]
        ax.broken_barh([(m, step * 1.02) for m in moments], (i - 0.35, 0.7), color=colours, linewidth=0)
    ax.set_yticks(range(len(ordered)), [s.legend for s in ordered])
    ax.set_ylim(-0.6, max(len(ordered), 3) - 0.4)
    _time_axis(ax, found[0].times)


DRAW = {"timeseries": lines, "stat": numbers, "bargauge": bars, "heatmap": heat, "table": table, "timeline": timeline}
