"""A clone whose first data are some months of the raw tables, and files with the rows of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from tests.support.repositories.scratch import pin, read_params, write_params

TIMED = ("flights", "weather")


def months(path: Path, table: str, first: int, last: int, every: int = 1) -> pd.DataFrame:
    """Return the rows of some months of a table in a project's data/, as text; of flights, every n-th."""
    frame = pd.read_csv(path / f"data/{table}.csv", dtype=str, keep_default_na=False)
    chosen = frame[frame["month"].astype(int).between(first, last)]
    return chosen.iloc[:: every if table == "flights" else 1].reset_index(drop=True)


def start_with(path: Path, last: int, every: int = 1) -> dict[str, Any]:
    """Cut the data of a project to the months January to `last`, and write parameters that fit."""
    p = read_params(path)
    end = str((pd.Period(f"2013-{last:02d}", "M").to_timestamp("D", "end")).date())
    for table in TIMED:
        frame = months(path, table, 1, last, every)
        frame.to_csv(path / f"data/{table}.csv", index=False)
        p["validate"]["rows"][table] = [len(frame), len(frame)]
        pin(path, p, table)
    p["problem"] |= {"last_date": end, "flights_per_day": [1, 1050]}
    shares = {name: 0.1 for name in p["validate"]["missing_share"] if name.startswith("flights.")}
    p["validate"]["missing_share"] |= shares
    for rule in ("flights.distance", "flights.hour", "weather.temp_spike", "weather.dewp_spike"):
        p["validate"]["tolerance"][rule] = 0 if last < 5 else p["validate"]["tolerance"][rule]
    split = str((pd.Period(f"2013-{last:02d}", "M").to_timestamp()).date())
    before = str((pd.Timestamp(split) - pd.Timedelta(days=1)).date())
    p["featurize"] |= {"train": ["2013-01-01", before], "test": [split, end], "reference_rows": 500}
    p["train"] |= {"rounds": 20, "fold_months": [last - 1], "min_data_in_leaf": 20, "threshold_rule": "alert_share"}
    p["evaluate"]["bootstrap"] = 50
    write_params(path, p)
    return p
