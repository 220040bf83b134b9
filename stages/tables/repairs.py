"""The repairs of rows that violate a rule within its tolerance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from stages.base.errors import DataInvalid
from stages.tables.partitions import Store, rewrite

Repairs = list[dict[str, Any]]


def repair(frame: pd.DataFrame, items: Repairs) -> tuple[pd.DataFrame, list[int]]:
    """Return a table with rows dropped and cells set to null, and the number of rows that each repair matches."""
    matches = []
    for item in items:
        rows = np.logical_and.reduce([_equal(frame[column], value) for column, value in item["key"].items()])
        matches.append(int(rows.sum()))
        if not matches[-1]:
            continue
        if item["action"] == "drop":
            frame = frame[~rows].reset_index(drop=True)
        else:
            frame = frame.assign(**{item["column"]: frame[item["column"]].where(~rows)})
    return frame, matches


def _equal(values: pd.Series, text: str) -> pd.Series:
    return values == pd.Series([text]).astype(values.dtype).iloc[0]


def repair_all(store: Store, repairs: Repairs) -> None:
    """Repair the rows in their files; raise DataInvalid if a repair's key does not match exactly one row."""
    for table in {item["table"]: None for item in repairs}:
        items = [item for item in repairs if item["table"] == table]
        found = np.zeros(len(items), dtype=int)
        for partition in store.files(table):
            frame, matches = repair(store.own(partition)[table], items)
            found += matches
            if any(matches):
                rewrite(table, partition, frame)
        for item, rows in zip(items, found, strict=True):
            if rows != 1:
                raise DataInvalid(
                    f"the key {item['key']} of {table} is that of {rows} rows, and {item['rule']} can repair one only: "
                    "add a rule that refuses rows with the same key to stages/problem."
                )
