"""What Prometheus answers to the queries of a panel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import yaml

from app.errors import OnTimeError
from ops.monitoring.dashboards.panel import Panel

Numbers = np.ndarray[tuple[int], np.dtype[np.float64]]
STEPS = 240
"""Points in time of a picture's lines."""
VARIABLES = ("$job", "$container")

_PART = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class NoAnswer(OnTimeError):
    """Prometheus cannot be asked."""


def fill(query: str, rate_interval: str, values: str = ".+") -> str:
    """Return a panel's query with Grafana's variables filled in."""
    filled = query.replace("$__rate_interval", rate_interval)
    for name in VARIABLES:
        filled = filled.replace(name, values)
    return filled


@dataclass(frozen=True)
class Series:
    """One line: its name in the legend, its labels, and its values over time; NaN where there is none."""

    legend: str
    labels: Mapping[str, str]
    times: Numbers
    values: Numbers

    @property
    def last(self) -> float:
        """The last value that is a number, or NaN."""
        known = self.values[np.isfinite(self.values)]
        return float(known[-1]) if len(known) else float("nan")


@dataclass(frozen=True)
class Source:
    """A Prometheus, and the stretch of time that is looked at, in seconds since 1970."""

    address: str
    start: float
    end: float

    @property
    def times(self) -> Numbers:
        """The points in time of a picture."""
        return np.linspace(self.start, self.end, STEPS + 1)

    def _get(self, path: str, **parameters: object) -> Any:
        try:
            answer = httpx.post(f"http://{self.address}/api/v1/{path}", data=parameters, timeout=60)
        except httpx.HTTPError as err:
            raise NoAnswer(f"{err!r} at {self.address}: `on-time monitor local` or `make stack` comes first.") from err
        if answer.status_code != 200:
            raise NoAnswer(f"{parameters.get('query')}: {answer.text[:300]}")
        return answer.json()["data"]

    def rate_interval(self) -> str:
        """Return what Grafana would fill in for $__rate_interval: at least four scrapes."""
        try:
            config = httpx.get(f"http://{self.address}/api/v1/status/config", timeout=60).json()["data"]["yaml"]
        except httpx.HTTPError as err:
            raise NoAnswer(f"{err!r} at {self.address}: `on-time monitor local` or `make stack` comes first.") from err
        match = re.fullmatch(r"(\d+)(ms|s|m|h|d)", yaml.safe_load(config)["global"]["scrape_interval"])
        assert match, "Prometheus writes durations like this"
        scrape = int(match[1]) * _SECONDS[match[2]]
        return f"{max(4 * scrape, (self.end - self.start) / STEPS + scrape):.0f}s"

    def ask(self, query: str, legend: str, instant: bool = False) -> list[Series]:
        """Return the series of a query over the whole stretch, or at its end."""
        times = self.times[-1:] if instant else self.times
        parameters = {"start": times[0], "end": times[-1] + 0.001, "step": (self.end - self.start) / STEPS}
        found = self._get("query_range", query=query, **parameters)["result"]
        return [_series(one, legend, times) for one in found]

    def of(self, panel: Panel, rate_interval: str) -> list[Series]:
        """Return the series of all queries of a panel."""
        instant = panel.kind in ("table", "bargauge")
        asked = [self.ask(fill(query, rate_interval), legend, instant) for legend, query in panel.queries.items()]
        return [series for found in asked for series in found]


def _series(one: Mapping[str, Any], legend: str, times: Numbers) -> Series:
    labels = dict(one["metric"])
    values = np.full(len(times), np.nan)
    for moment, value in one["values"]:
        values[int(np.abs(times - float(moment)).argmin())] = float(value)
    name = _PART.sub(lambda match: labels.get(match[1], ""), legend)
    return Series(name or labels.get("__name__", ""), labels, times, values)
