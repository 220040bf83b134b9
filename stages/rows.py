"""The rows of the problem: one for each prediction, with target, day and group."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from app.features import day_number

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Rows in a fixed order; each array has the shape (n,)."""

    frame: pd.DataFrame
    """The problem's own columns, which the core passes on."""
    target: npt.NDArray[np.int8]
    """1 where the predicted event happened, 0 elsewhere."""
    day: npt.NDArray[np.int32]
    """Local day, in days since 1970-01-01; training and test are periods of days."""
    group: npt.NDArray[np.int32]
    """Rows of one group depend on each other: the bootstrap draws whole groups."""

    def __len__(self) -> int:
        return len(self.frame)

    def where(self, chosen: Mask) -> Rows:
        """Return these rows."""
        return Rows(self.frame[chosen], self.target[chosen], self.day[chosen], self.group[chosen])

    def within(self, period: tuple[date, date]) -> Mask:
        """Return which rows lie in a period, both ends included."""
        return (self.day >= day_number(period[0])) & (self.day <= day_number(period[1]))


def day_of(number: int) -> date:
    """Return the day that is so many days after 1970-01-01."""
    return date.fromordinal(date(1970, 1, 1).toordinal() + int(number))


def month_of(days: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Return the calendar month (1 to 12) of days since 1970-01-01."""
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) % 12 + 1
