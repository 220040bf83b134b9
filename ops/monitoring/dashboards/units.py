"""Numbers with their units, as short as Grafana writes them."""

from __future__ import annotations

import math

_SCALES: dict[str, tuple[tuple[str, float], ...]] = {
    "s": (("d", 86400), ("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3), ("µs", 1e-6), ("s", 0)),
    "bytes": (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 0)),
    "Bps": (("GB/s", 1e9), ("MB/s", 1e6), ("kB/s", 1e3), ("B/s", 0)),
}
"""The forms of a unit, each from a value on."""
_COUNTS = (("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 0))
_SUFFIXES = {"reqps": " req/s", "cps": "/s", "pps": " p/s", "x": " x", "short": "", "none": ""}
_WORDS = {"bool_on_off": ("Off", "On"), "bool_yes_no": ("No", "Yes")}


def text(value: float, unit: str) -> str:
    """Return a value with its unit."""
    if not math.isfinite(value):
        return "no data"
    if unit in _WORDS:
        return _WORDS[unit][value > 0]
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    forms = _SCALES.get(unit, _COUNTS)
    name, least = next(form for form in forms if abs(value) >= form[1])
    return f"{value / (least or 1):.3g}" + (f" {name}" if unit in _SCALES else name + _SUFFIXES[unit])
