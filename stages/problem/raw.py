"""The raw tables, read as they are."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from stages.rules import Tables

TABLES = ("flights", "weather", "planes", "airports", "airlines")
TIMED = ("flights", "weather")


def load(folder: Path) -> Tables:
    """Return the five tables of the flights that left New York in 2013; times of the hour become UTC timestamps."""
    return {
        name: pd.read_csv(folder / f"{name}.csv", parse_dates=["time_hour"] if name in TIMED else None)
        for name in TABLES
    }
