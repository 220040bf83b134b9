"""The raw tables in data/: the source package's, with the additions of `on-time data add` over them, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from stages.interface import KEYS, TABLES
from stages.problem_kit.columns import kind
from stages.problem_kit.params import ADDED
from stages.problem_kit.rules import Tables

CHUNK_ROWS = 500_000


def read_csv(path: Path, table: str, rows: int | None = None) -> Any:
    """Return a CSV file of a table; text columns are read as text, and times are parsed.

    With `rows`, return an iterator over frames of that number of rows.
    """
    header = pd.read_csv(path, nrows=0).columns
    kinds = {name: kind(column) for name, column in TABLES[table].items() if name in header}
    times = [name for name, found in kinds.items() if found == "time"]
    texts: Any = {name: str for name, found in kinds.items() if found == "text"}
    return pd.read_csv(path, dtype=texts, parse_dates=times, chunksize=rows)


def chunks(folder: Path, table: str) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield the rows of a table, at most CHUNK_ROWS at a time, each with the number of its source."""
    for frame in read_csv(folder / f"{table}.csv", table, CHUNK_ROWS):
        yield 0, frame
    for source, path in enumerate(additions(folder, table), 1):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(CHUNK_ROWS):
                yield source, batch.to_pandas()


def additions(folder: Path, table: str) -> list[Path]:
    """Return what `on-time data add` added to a table, in its order."""
    return sorted(folder.glob(f"{ADDED}/*/{table}.parquet"))


def empty(table: str) -> pd.DataFrame:
    """Return a table without rows."""
    return pd.DataFrame({name: pd.Series(dtype=str(column.dtype)) for name, column in TABLES[table].items()})


def absorb(frames: list[pd.DataFrame], keys: list[str]) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
    """Return the rows of all frames by key: the last of each, in the place of the first; and each row's place."""
    whole = pd.concat(frames, ignore_index=True)
    place = whole.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
    last = ~whole.duplicated(keys, keep="last").to_numpy()
    return whole[last].iloc[np.argsort(place[last])].reset_index(drop=True), place


def load_tables(folder: Path) -> Tables:
    """Return the raw tables by name, with the additions in their order."""
    tables = {}
    for table in TABLES:
        tables[table] = read_csv(folder / f"{table}.csv", table)
        added = additions(folder, table)
        if added:
            frames = [tables[table], *(pd.read_parquet(path) for path in added)]
            tables[table] = absorb(frames, KEYS[table])[0]
    return tables
