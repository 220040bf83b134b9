"""Numbers with their units, as short as Grafana writes them."""

from __future__ import annotations

import math

_DURATIONS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))
_SUFFIXES = {"reqps": " req/s", "cps": "/s", "pps": " p/s", "x": " x", "short": "", "none": ""}
_WORDS = {"bool_on_off": ("Off", "On"), "bool_yes_no": ("No", "Yes")}
_THOUSANDS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
_BINARY = ((2**30, " GiB"), (2**20, " MiB"), (2**10, " KiB"))


def text(value: float, unit: str) -> str:
    """Return a value with its unit."""
    if not math.isfinite(value):
        return "no data"
    if unit in _WORDS:
        return _WORDS[unit][value > 0]
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return _scaled(value, _DURATIONS, " s", " ")
    if unit == "bytes":
        return _scaled(value, _BINARY, " B")
    if unit == "Bps":
        return _scaled(value, _THOUSANDS, " B/s") + ("B/s" if abs(value) >= 1e3 else "")
    return _scaled(value, _THOUSANDS, "") + _SUFFIXES[unit]


def _scaled(value: float, steps: tuple[tuple[float, str], ...], small: str, space: str = "") -> str:
    for size, name in steps:
        if abs(value) >= size:
            return f"{value / size:.3g}{space}{name}"
    return f"{value:.3g}{small}"
