"""Predictions for validated requests: computed, counted, recorded in the journal, serialised as JSON."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel, Field

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
    rows: Sequence[Sequence[float]]
    """The features, shape (n, k)."""
    probabilities: list[float]

    def json(self) -> str:
        """Return the predictions as the JSON of `schemas.Prediction`, separated by commas."""
        tail, threshold = self.served.json_tail, self.served.bundle.threshold
        alerts = ("false", "true")
        return ",".join(
            [
                f'{{"prediction_id":"{name}","probability":{risk!r},"alert":{alerts[risk >= threshold]}{tail}'
                for name, risk in zip(self.ids, self.probabilities, strict=True)
            ]
        )

    def json_batch(self) -> str:
        """Return the predictions as the JSON of `schemas.BatchPrediction`."""
        return f'{{"predictions":[{self.json()}]}}'


class Journal(Protocol):
    """A sink of predictions."""

    def record(self, batch: Predictions) -> None:
        """Queue predictions without blocking; drop and count them when the queue is full."""


class NoJournal:
    """A sink that discards predictions."""

    def record(self, batch: Predictions) -> None:
        """Discard the predictions."""


def new_id() -> str:
    """Return a unique id of 32 hex digits that sorts by time, to the millisecond."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def explain(bundle: Bundle, row: Sequence[float]) -> Explanation:
    """Return the contribution of each feature of a row, largest first."""
    *contributions, baseline = bundle.booster.contributions(np.array([row]))[0].tolist()
    parts = [
        Contribution(feature=name, value=value, contribution=part)
        for (name, value), part in zip(bundle.values(row).items(), contributions, strict=True)
    ]
    parts.sort(key=lambda part: -abs(part.contribution))
    return Explanation(log_odds=baseline + sum(contributions), baseline=baseline, contributions=parts)


def _predictions(served: ServedModel, rows: Sequence[Sequence[float]], risks: list[float]) -> Predictions:
    return Predictions(time.time(), served, [new_id() for _ in risks], rows, risks)


class Predictor:
    """Predicts with a model, counts the predictions and records them in the journal."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.journal: Journal = NoJournal()

    def single(self, served: ServedModel, request: Request, probe: bool = False) -> Predictions:
        """Predict one request; call it in the event loop's thread only. A probe is neither counted nor recorded."""
        started = time.perf_counter()
        row = compute_one(request, served.bundle.lookups)
        risks = [served.bundle.booster.predict_single(row)]
        return _predictions(served, [row], risks) if probe else self._done(served, started, [row], risks)

    def many(self, served: ServedModel, requests: Sequence[Request]) -> Predictions:
        """Predict requests together, in their order."""
        started = time.perf_counter()
        matrix = compute(columns(requests), served.bundle.lookups)
        risks: list[float] = predict(served.bundle.booster, matrix).tolist()
        return self._done(served, started, matrix.tolist(), risks)

    def _done(
        self, served: ServedModel, started: float, rows: Sequence[Sequence[float]], risks: list[float]
    ) -> Predictions:
        predictions = _predictions(served, rows, risks)
        self.metrics.model.observe(served, time.perf_counter() - started, rows, risks)
        self.journal.record(predictions)
        return predictions
