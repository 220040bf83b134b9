"""The raw tables, read as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from stages.fetch import DATA_DIR


@dataclass(frozen=True)
class RawTables:
    """The five tables of the flights that left New York in 2013."""

    flights: pd.DataFrame
    weather: pd.DataFrame
    planes: pd.DataFrame
    airports: pd.DataFrame
    airlines: pd.DataFrame


def load(directory: Path = DATA_DIR) -> RawTables:
    """Read the tables; times of the hour become UTC timestamps, everything else stays as it is written."""

    def read(name: str, **options: object) -> pd.DataFrame:
        return pd.read_csv(directory / f"{name}.csv", **options)

    return RawTables(
        flights=read("flights", parse_dates=["time_hour"]),
        weather=read("weather", parse_dates=["time_hour"]),
        planes=read("planes"),
        airports=read("airports"),
        airlines=read("airlines"),
    )
