"""What a board shows, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["timeseries", "stat", "bargauge", "heatmap", "table", "timeline"]
Steps = tuple[tuple[float, str], ...]
"""Colours from these values on; the first one starts at minus infinity, whatever its value."""

NEUTRAL: Steps = ((0, "blue"),)
"""For what is neither good nor bad."""


def above(bad: float, warn: float | None = None) -> Steps:
    """Return steps of a value that is bad from `bad` on."""
    return ((0, "green"), *([(warn, "orange")] if warn is not None else []), (bad, "red"))


def below(good: float, warn: float | None = None) -> Steps:
    """Return steps of a value that is good from `good` on, and bad below it (below `warn`, if there is one)."""
    return ((0, "red"), *([(warn, "orange")] if warn is not None else []), (good, "green"))


def outside(low: float, high: float) -> Steps:
    """Return steps of a value that is bad at both ends."""
    return ((0, "red"), (low, "green"), (high, "red"))


@dataclass(frozen=True)
class Panel:  # pylint: disable=too-many-instance-attributes # it is a form to fill in
    """One picture: `queries` by legend; `unit` as Grafana names it; `width` in 24ths of the board."""

    title: str
    description: str
    unit: str
    queries: Mapping[str, str]
    kind: Kind = "timeseries"
    steps: Steps = NEUTRAL
    width: int = 12
    height: int = 8
    low: float | None = 0
    high: float | None = None
    stacked: bool = False
    dashed: tuple[str, ...] = ()
    """Legends, or regular expressions for them, of lines that are limits."""
    columns: tuple[str, ...] = ()
    """The columns of a table, in order."""
    link: tuple[str, str] | None = None
    """Title and address that a value leads to."""


@dataclass(frozen=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Board:
    """A dashboard; `variables` are queries for the values of a variable, by its name."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
