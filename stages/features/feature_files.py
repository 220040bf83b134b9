"""The features between the stages: folders of Parquet files, columns besides the features, and which rows they are.

The files of a folder are its partitions: sorted by name, they are in the order of the rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from app.interface import FEATURE_NAMES
from app.problem_kit.features import Floats
from stages.base.errors import DataInvalid
from stages.base.paths import FEATURES_DIR, sha256
from stages.problem_kit.rows import day_of

LOOKUPS_FILE = FEATURES_DIR / "lookups.json"
TARGET, DAY, GROUP, KEY = "target", "day", "group", "key"


def described(frame: pd.DataFrame) -> dict[str, Any]:
    """Return which rows these are: first and last day (ISO 8601), number, and SHA-256 of keys and targets in order."""
    rows = frame[[KEY, TARGET]].sort_values([KEY, TARGET])
    content = rows[KEY].to_numpy(dtype="<u8").tobytes() + rows[TARGET].to_numpy(dtype="i1").tobytes()
    first, last = (str(day_of(day)) for day in (frame[DAY].min(), frame[DAY].max()))
    return {"first": first, "last": last, "rows": len(frame), "sha256": hashlib.sha256(content).hexdigest()}


def scenario_name(scenario: str) -> str:
    """Return the name of the test features in a scenario."""
    return f"test_{scenario.replace(' ', '_')}"


def files(name: str) -> list[Path]:
    """Return the files of features in their order; raise DataInvalid if there are none."""
    found = sorted((FEATURES_DIR / name).glob("*.parquet"))
    if not found:
        raise DataInvalid(f"{FEATURES_DIR / name} is missing or empty. `dvc repro featurize` makes it.")
    return found


def month_of(path: Path) -> int:
    """Return the month of the rows of a file, since January 1970, for `partition: month`."""
    return int(np.datetime64(path.stem.partition("-")[2], "M").astype(int))


def each(name: str) -> Iterator[pd.DataFrame]:
    """Yield the rows of each file."""
    return (pd.read_parquet(path) for path in files(name))


def read(name: str, columns: list[str] | None = None) -> pd.DataFrame:
    """Return all rows."""
    return pd.concat([pd.read_parquet(path, columns=columns) for path in files(name)], ignore_index=True)


def digest(name: str) -> str:
    """Return the SHA-256 of the digests of the files in their order."""
    return hashlib.sha256("".join(sha256(path) for path in files(name)).encode()).hexdigest()


def matrix(frame: pd.DataFrame) -> Floats:
    """Return the features of a frame, shape (n, k)."""
    return np.asarray(frame[list(FEATURE_NAMES)], dtype=np.float64)
