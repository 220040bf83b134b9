"""The dashboards as data: one YAML file each, checked when it is read."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from stages import tracked

FOLDER = Path(__file__).parent


class Link(BaseModel, extra="forbid", frozen=True):
    """Where a value of a panel leads."""

    title: str
    url: str


class Panel(BaseModel, extra="forbid", frozen=True):
    """One panel; `unit` is a name of Grafana's, `width` is in 24ths of the board."""

    title: str
    description: str
    unit: str
    queries: dict[str, str]
    """PromQL by its legend."""
    kind: Literal["timeseries", "stat", "bargauge", "heatmap", "table", "timeline"] = "timeseries"
    steps: dict[str, int | float] = {"blue": 0}
    """The colour of values from each of these on, in ascending order; the first one starts at minus infinity."""
    width: int = 12
    height: int = 8
    low: int | float | None = 0
    high: int | float | None = None
    stacked: bool = False
    dashed: tuple[str, ...] = ()
    """Regular expressions for the legends of limits."""
    columns: tuple[str, ...] = ()
    """The columns of a table, in order."""
    link: Link | None = None


class Row(BaseModel, extra="forbid", frozen=True):
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


class Board(BaseModel, extra="forbid", frozen=True):
    """A dashboard; `variables` are queries for the values of a variable, by its name."""

    uid: str
    title: str
    description: str
    variables: dict[str, str]
    rows: tuple[Row, ...]


def load() -> list[Board]:
    """Read every board; raise ValidationError with the name of what is missing or unknown."""
    return [Board.model_validate(tracked.load(file)) for file in sorted(FOLDER.glob("*.yml"))]
