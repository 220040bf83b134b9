"""The raw tables in data/: those of the source package, and over them what `on-time data add` added, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from stages.columns import kind
from stages.interface import COLUMNS, KEYS
from stages.rules import Tables
from stages.sections import ADDED


def read_csv(path: Path, table: str) -> pd.DataFrame:
    """Return a CSV file of a table; text columns are text, and times are parsed, whatever the file has in them."""
    header = pd.read_csv(path, nrows=0).columns
    kinds = {name: kind(column) for name, column in COLUMNS[table].items() if name in header}
    times = [name for name, found in kinds.items() if found == "time"]
    texts: Any = {name: str for name, found in kinds.items() if found == "text"}
    return pd.read_csv(path, dtype=texts, parse_dates=times)


def absorb(frames: list[pd.DataFrame], keys: list[str]) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    """Return the rows of all frames by key: the last of each, in the place of the first; and each row's place."""
    whole = pd.concat(frames, ignore_index=True)
    place = whole.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
    last = ~whole.duplicated(keys, keep="last").to_numpy()
    return whole[last].iloc[np.argsort(place[last])].reset_index(drop=True), place


def load_tables(folder: Path) -> Tables:
    """Return the raw tables by name, with the additions in their order."""
    tables = {}
    for table in COLUMNS:
        tables[table] = read_csv(folder / f"{table}.csv", table)
        if added := sorted(folder.glob(f"{ADDED}/*/{table}.parquet")):
            frames = [tables[table], *(pd.read_parquet(path) for path in added)]
            tables[table] = absorb(frames, KEYS[table])[0]
    return tables
