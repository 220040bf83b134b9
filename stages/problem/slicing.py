"""The slices of the evaluation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from app.problem.features import FEATURES
from app.problem.lookups import Lookups

HOUR_BANDS = {"05-09": (0, 9), "09-13": (9, 13), "13-17": (13, 17), "17-24": (17, 24)}


def slices(features: pd.DataFrame, lookups: Lookups) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the row mask of each slice, shape (n,): origin, carrier, hour of departure, weather missing or present."""
    rows: dict[str, npt.NDArray[np.bool_]] = {}
    for column in ("origin", "carrier"):
        for code, name in enumerate(lookups.vocabularies[column]):
            rows[f"{column}={name}"] = features[column].to_numpy() == code
    hour = features["departure_minute"].to_numpy() // 60
    for name, (first, last) in HOUR_BANDS.items():
        rows[f"hour={name}"] = (hour >= first) & (hour < last)
    missing = features[[f.name for f in FEATURES if f.group == "weather"]].isna().all(axis=1).to_numpy()
    return rows | {"weather=missing": missing, "weather=present": ~missing}
