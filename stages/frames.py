"""The features between the stages: their files, their columns besides the features, and which rows they are."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from app.features import Floats
from app.interface import FEATURE_NAMES
from stages.rows import day_of

OUT_DIR = Path("build/features")
LOOKUPS_FILE = OUT_DIR / "lookups.json"
TARGET, DAY, GROUP, KEY = "target", "day", "group", "key"


def described(frame: pd.DataFrame) -> dict[str, Any]:
    """Return which rows these are: first and last day (ISO 8601), number, and SHA-256 of keys and targets in order."""
    rows = frame[[KEY, TARGET]].sort_values([KEY, TARGET])
    content = rows[KEY].to_numpy(dtype="<u8").tobytes() + rows[TARGET].to_numpy(dtype="i1").tobytes()
    first, last = (str(day_of(day)) for day in (frame[DAY].min(), frame[DAY].max()))
    return {"first": first, "last": last, "rows": len(frame), "sha256": hashlib.sha256(content).hexdigest()}


def scenario_file(scenario: str) -> Path:
    """Return the path of the test features in a scenario."""
    return OUT_DIR / f"test_{scenario.replace(' ', '_')}.parquet"


def matrix(frame: pd.DataFrame) -> Floats:
    """Return the features of a frame, shape (n, k)."""
    return np.asarray(frame[list(FEATURE_NAMES)], dtype=np.float64)
