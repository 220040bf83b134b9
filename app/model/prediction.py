"""Predictions for validated requests: computed, counted, recorded in the journal, serialised as JSON."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, Field
from pydantic_core import to_json

from app.features import Floats
from app.interface import FEATURE_NAMES, Request, columns, compute, compute_one
from app.metrics import Metrics
from app.model.bundle import Bundle, predict
from app.model.served import ServedModel


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
    """The features, shape (n, k)."""
    probabilities: list[float]
    requests: Sequence[Request]
    """As validated, for the journal to serialise; empty with `received`."""
    received: bytes = b""
    """As they were received, JSON objects separated by commas."""

    def json(self, explanation: Explanation | None = None) -> bytes:
        """Return the only prediction as the JSON of `schemas.Prediction`."""
        (one,) = self._contents()
        return to_json(one if explanation is None else one | {"explanation": explanation})

    def json_batch(self) -> bytes:
        """Return the predictions as the JSON of `schemas.BatchPrediction`."""
        return to_json({"predictions": self._contents()})

    def _contents(self) -> list[dict[str, Any]]:
        constant, threshold = self.served.constant, self.served.bundle.threshold
        return [
            {"prediction_id": name, "probability": risk, "alert": risk >= threshold, **constant}
            for name, risk in zip(self.ids, self.probabilities, strict=True)
        ]


class Journal(Protocol):
    """A sink of predictions."""

    def record(self, batch: Predictions) -> None:
        """Queue predictions without blocking; drop and count them when the queue is full."""


class NoJournal:
    """A sink that discards predictions."""

    def record(self, batch: Predictions) -> None:
        """Discard the predictions."""


def new_ids(created: float, count: int) -> list[str]:
    """Return unique ids of 32 hex digits, the first 12 of which are the time, milliseconds since 1970."""
    head, tails = f"{int(created * 1000):012x}", os.urandom(10 * count).hex()
    return [head + tails[i : i + 20] for i in range(0, 20 * count, 20)]


def new_id() -> str:
    """Return a unique id of 32 hex digits that sorts by time."""
    return new_ids(time.time(), 1)[0]


def explain(bundle: Bundle, row: Sequence[float]) -> Explanation:
    """Return the contribution of each feature of a row, largest first."""
    *contributions, baseline = bundle.booster.contributions(np.array([row]))[0].tolist()
    parts = [
        Contribution(feature=name, value=value, contribution=part)
        for (name, value), part in zip(bundle.values(row).items(), contributions, strict=True)
    ]
    parts.sort(key=lambda part: -abs(part.contribution))
    return Explanation(log_odds=baseline + sum(contributions), baseline=baseline, contributions=parts)


def _predictions(
    served: ServedModel,
    requests: Sequence[Request],
    received: bytes,
    rows: Sequence[Sequence[float]],
    risks: list[float],
) -> Predictions:
    now = time.time()
    return Predictions(now, served, new_ids(now, len(risks)), rows, risks, () if received else requests, received)


class Predictor:
    """Predicts with a model, counts the predictions and records them in the journal."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.journal: Journal = NoJournal()

    def single(self, served: ServedModel, request: Request, probe: bool = False, received: bytes = b"") -> Predictions:
        """Predict one request; call it in the event loop's thread only. A probe is neither counted nor recorded."""
        started = time.perf_counter()
        row = compute_one(request, served.bundle.lookups)
        risks = [served.bundle.booster.predict_single(row)]
        if probe:
            return _predictions(served, [request], received, [row], risks)
        return self._done(served, started, [request], received, [row], risks)

    def many(self, served: ServedModel, requests: Sequence[Request], received: bytes = b"") -> Predictions:
        """Predict requests together, in their order."""
        started = time.perf_counter()
        matrix = compute(columns(requests), served.bundle.lookups)
        risks: list[float] = predict(served.bundle.booster, matrix).tolist()
        return self._done(served, started, requests, received, matrix.tolist(), risks)

    def _done(
        self,
        served: ServedModel,
        started: float,
        requests: Sequence[Request],
        received: bytes,
        rows: Sequence[Sequence[float]],
        risks: list[float],
    ) -> Predictions:  # pylint: disable=too-many-arguments,too-many-positional-arguments # one call per prediction
        predictions = _predictions(served, requests, received, rows, risks)
        self.metrics.model.observe(served, time.perf_counter() - started, rows, risks)
        self.journal.record(predictions)
        return predictions
