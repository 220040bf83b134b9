"""Reading of the raw tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from stages.rules import Tables

TABLES = ("flights", "weather", "planes", "airports", "airlines")
TIMED = ("flights", "weather")


def load(folder: Path) -> Tables:
    """Return the five raw tables by name; `time_hour` is parsed as UTC timestamps."""
    return {
        name: pd.read_csv(folder / f"{name}.csv", parse_dates=["time_hour"] if name in TIMED else None)
        for name in TABLES
    }
