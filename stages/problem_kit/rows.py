"""The rows of the problem: one per prediction, with target, day and group."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from app.problem_kit.features import day_number

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LabelledRows:
    """Rows in a fixed order; each array has the shape (n,)."""

    frame: pd.DataFrame
    """The problem's columns, opaque to the core."""
    target: npt.NDArray[np.int8]
    """1 if the predicted event happened, else 0."""
    day: npt.NDArray[np.int32]
    """Local day, days since 1970-01-01; training and test periods are ranges of days."""
    group: npt.NDArray[np.int32]
    """Rows of one group are not independent: the bootstrap resamples whole groups."""
    key: npt.NDArray[np.uint64]
    """The identity of a row, as `row_keys` makes it: equal keys are the same row."""

    def __len__(self) -> int:
        return len(self.frame)

    def where(self, chosen: Mask) -> LabelledRows:
        """Return the masked rows."""
        return LabelledRows(
            self.frame[chosen], self.target[chosen], self.day[chosen], self.group[chosen], self.key[chosen]
        )

    def within(self, period: tuple[date, date]) -> Mask:
        """Return the mask of the rows in a period, both ends included."""
        return (self.day >= day_number(period[0])) & (self.day <= day_number(period[1]))


def row_keys(columns: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """Return the identities of rows from the columns that identify them, shape (n,): 64 bits of their hash."""
    return np.asarray(pd.util.hash_pandas_object(columns, index=False), dtype=np.uint64)


def day_of(number: int) -> date:
    """Return the date of a number of days since 1970-01-01."""
    return date.fromordinal(date(1970, 1, 1).toordinal() + int(number))


def months_of(days: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Return the months, since January 1970, of days since 1970-01-01."""
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def month_names(months: npt.ArrayLike) -> dict[int, str]:
    """Return the names of months since January 1970, in their order: "05" within one year, else "2013-05"."""
    known = np.unique(np.asarray(months, dtype=np.int64))
    one_year = len(np.unique(known // 12)) == 1
    return {int(m): f"{m % 12 + 1:02d}" if one_year else f"{1970 + m // 12}-{m % 12 + 1:02d}" for m in known}


def month_of(days: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Return the calendar month (1 to 12) of days since 1970-01-01."""
    return months_of(days) % 12 + 1
