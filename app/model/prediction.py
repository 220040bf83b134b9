"""The predictions for a request: their ids, their fields, and the contribution of each feature."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, Field

from app.batches.received import Format
from app.interface import FEATURE_NAMES, Request
from app.model.bundles import Bundle
from app.model.served import ServedModel
from app.problem_kit.features import Floats


class Contribution(BaseModel):
    """The contribution of one feature to a prediction."""

    feature: str = Field(examples=[FEATURE_NAMES[-1]])
    value: float | str | None = Field(description="Value of the feature; null if missing.")
    contribution: float = Field(description="Contribution to the log-odds.", examples=[0.41])


class Explanation(BaseModel):
    """Feature contributions: they and the baseline add up to the log-odds."""

    log_odds: float = Field(description="ln(p / (1 - p)) of the probability.", examples=[1.87])
    baseline: float = Field(description="Expected log-odds over the training rows.", examples=[-1.05])
    contributions: list[Contribution] = Field(description="One per feature, largest first.")


class Predictions(NamedTuple):
    """The predictions for one HTTP request, in the order of its rows."""

    created: float
    """Seconds since 1970."""
    served: ServedModel
    ids: list[str]
    rows: Sequence[Sequence[float]] | Floats
    """The features, shape (n, k); of a batch, an array."""
    probabilities: list[float]
    requests: Sequence[Request]
    """As validated, for the journal to serialise; empty with `received`."""
    received: bytes = b""
    """As received: JSON objects separated by commas, or an Arrow stream."""
    format: Format = "rows"
    """The form of the request's body."""

    def contents(self) -> list[dict[str, Any]]:
        """Return the fields of each prediction, as `schemas.Prediction` has them."""
        constant, threshold = self.served.constant, self.served.bundle.threshold
        return [
            {"prediction_id": name, "probability": risk, "alert": risk >= threshold, **constant}
            for name, risk in zip(self.ids, self.probabilities, strict=True)
        ]


_drawn: list[str] = []
"""Random ends of ids: many are drawn at once, as each call of the operating system takes 1 µs."""


def _random_digits(count: int) -> list[str]:
    """Return random texts of 20 hex digits."""
    drawn = os.urandom(10 * count).hex()
    return [drawn[i : i + 20] for i in range(0, 20 * count, 20)]


def new_ids(created: float, count: int) -> list[str]:
    """Return unique ids of 32 hex digits, the first 12 of which are the time, milliseconds since 1970."""
    head = f"{int(created * 1000):012x}"
    if count > 1:
        return [head + tail for tail in _random_digits(count)]
    try:
        return [head + _drawn.pop()]
    except IndexError:  # also if another thread took the last one
        _drawn.extend(_random_digits(256))
        return new_ids(created, count)


def new_id() -> str:
    """Return a unique id of 32 hex digits that sorts by time."""
    return new_ids(time.time(), 1)[0]


def explain_prediction(bundle: Bundle, row: Sequence[float]) -> Explanation:
    """Return the contribution of each feature of a row, largest first."""
    *contributions, baseline = bundle.booster.contributions(np.array([row]))[0].tolist()
    parts = [
        Contribution(feature=name, value=value, contribution=part)
        for (name, value), part in zip(bundle.values(row).items(), contributions, strict=True)
    ]
    parts.sort(key=lambda part: -abs(part.contribution))
    return Explanation(log_odds=baseline + sum(contributions), baseline=baseline, contributions=parts)
