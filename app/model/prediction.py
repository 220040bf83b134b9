"""Predictions for validated requests: computed, counted, recorded in the journal, serialised as JSON."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field
from pydantic_core import to_json

from app.batches.stream import write
from app.interface import FEATURE_NAMES, ROWS, Request, compute, compute_one
from app.metrics import Metrics
from app.model.bundle import Bundle, predict
from app.model.served import ServedModel
from app.problem_kit.features import Floats

Format = Literal["rows", "arrow"]
"""The form of a batch: JSON, or an Arrow stream."""
KEPT = 4096
"""Bytes per request up to which the journal gets it as it was received, which needs no time and limits the queue."""
_ROWS = f'"{ROWS}"'.encode()


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


class Received(NamedTuple):
    """A validated batch."""

    columns: Sequence[Any]
    """The problem's columns; of several parts, one after another."""
    requests: Iterable[Request]
    body: bytes = b""
    """As received; empty if the journal has to serialise the requests."""
    format: Format = "rows"


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

    def json(self, explanation: Explanation | None = None) -> bytes:
        """Return the only prediction as the JSON of `schemas.Prediction`."""
        (one,) = self.contents()
        return to_json(one if explanation is None else one | {"explanation": explanation})

    def json_batch(self) -> bytes:
        """Return the predictions as the JSON of `schemas.BatchPrediction`."""
        known = to_json(self.served.constant)[1:-1]
        flags = [b"true" if risk >= self.served.bundle.threshold else b"false" for risk in self.probabilities]
        numbers = to_json(self.probabilities)[1:-1].split(b",")
        parts = [
            b'{"prediction_id":"%b","probability":%b,"alert":%b,%b}' % (name.encode(), number, flag, known)
            for name, number, flag in zip(self.ids, numbers, flags, strict=True)
        ]
        return b'{"predictions":[%b]}' % b",".join(parts)

    def arrow_batch(self) -> bytes:
        """Return the predictions as an Arrow stream with the columns of `schemas.Prediction`."""
        risks, threshold = np.array(self.probabilities), self.served.bundle.threshold
        return write(
            {
                "prediction_id": pa.array(self.ids),
                "probability": pa.array(risks),
                "alert": pa.array(risks >= threshold),
                "threshold": pa.repeat(threshold, len(risks)),
                "model": pa.repeat(pa.scalar(self.served.constant["model"]), len(risks)),
            }
        )

    def contents(self) -> list[dict[str, Any]]:
        """Return the fields of each prediction, as `schemas.Prediction` has them."""
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


def explain(bundle: Bundle, row: Sequence[float]) -> Explanation:
    """Return the contribution of each feature of a row, largest first."""
    *contributions, baseline = bundle.booster.contributions(np.array([row]))[0].tolist()
    parts = [
        Contribution(feature=name, value=value, contribution=part)
        for (name, value), part in zip(bundle.values(row).items(), contributions, strict=True)
    ]
    parts.sort(key=lambda part: -abs(part.contribution))
    return Explanation(log_odds=baseline + sum(contributions), baseline=baseline, contributions=parts)


def kept_body(batch: Received, rows: int) -> bytes:
    """Return what the journal stores of a batch as received; empty if it has to serialise the requests."""
    body = batch.body
    if len(body) > KEPT * rows:
        return b""
    if batch.format == "arrow":
        return body
    # The objects between the brackets, unless the key may be given more than once.
    if b"\\" in body or body.count(_ROWS) != 1:
        return b""
    return body[body.index(b"[") + 1 : body.rindex(b"]")].strip()


class Predictor:
    """Predicts with a model, counts the predictions and records them in the journal."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.journal: Journal = NoJournal()

    def single(self, served: ServedModel, request: Request, probe: bool = False) -> Predictions:
        """Predict one request; call it in the event loop's thread only. A probe is neither counted nor recorded."""
        started = time.perf_counter()
        found = self.compute(served, request)
        if not probe:
            self.record(found, time.perf_counter() - started)
        return found

    def compute(self, served: ServedModel, request: Request, received: bytes = b"") -> Predictions:
        """Predict one request without a trace; the journal gets `received`, if there are any bytes, as the request."""
        row = compute_one(request, served.bundle.lookups)
        risk = served.bundle.booster.predict_single(row)
        now = time.time()
        requests = () if received else (request,)
        return Predictions(now, served, new_ids(now, 1), [row], [risk], requests, received)

    def record(self, predictions: Predictions, seconds: float) -> None:
        """Queue the prediction for one request, which took some seconds, for the metrics and the journal."""
        self.metrics.model.queue(predictions.served, seconds, predictions.rows[0], predictions.probabilities[0])
        self.journal.record(predictions)

    def batch(self, served: ServedModel, batch: Received) -> Predictions:
        """Predict a batch, in its order."""
        started = time.perf_counter()
        parts = [compute(part, served.bundle.lookups) for part in batch.columns]
        matrix = np.concatenate(parts)
        risks = predict(served.bundle.booster, matrix)
        now = time.time()
        received = kept_body(batch, len(risks))
        requests = () if received else list(batch.requests)
        ids = new_ids(now, len(risks))
        predictions = Predictions(now, served, ids, matrix, risks.tolist(), requests, received, batch.format)
        self.metrics.model.observe_batch(served, time.perf_counter() - started, matrix, risks)
        self.journal.record(predictions)
        return predictions
