"""The types with which the problem describes its features."""

from __future__ import annotations

from datetime import date
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Feature(NamedTuple):
    """A column of the model's input."""

    name: str
    kind: Literal["number", "category"] = "number"
    unit: str = ""
    group: str = ""
    """Features of one group are missing together, for example when their source is unavailable."""
    text: str = ""


class Words(NamedTuple):
    """A column of texts, each of them once: the i-th value of the column is `words[places[i]]`."""

    words: list[str | None]
    places: Ints


def day_number(day: date) -> int:
    """Return a date as days since 1970-01-01."""
    return day.toordinal() - date(1970, 1, 1).toordinal()
