"""From validated requests to predictions: computed, counted, journalled, and written as JSON."""

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
    value: float | str | None = Field(description="Value of the feature; null where it is missing.")
    contribution: float = Field(description="Its addition to the log-odds.", examples=[0.41])


class Explanation(BaseModel):
    """Feature contributions: they and the baseline add up to the log-odds."""

    log_odds: float = Field(description="ln(p / (1 - p)) of the probability.", examples=[1.87])
    baseline: float = Field(description="The log-odds before any feature is known.", examples=[-1.05])
    contributions: list[Contribution] = Field(description="One per feature, largest first.")


class Answer(NamedTuple):
    """What one request was answered, as the journal takes it."""

    created: float
    """Seconds since 1970."""
    served: ServedModel
    ids: list[str]
    rows: Sequence[Sequence[float]]
    """The features, shape (n, k)."""
    probabilities: list[float]

    def json(self) -> str:
        """Return the predictions as the JSON of `schemas.Prediction`, with commas between them."""
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
    """Where answers are kept."""

    def record(self, answer: Answer) -> None:
        """Take one answer without waiting; what there is no room for is dropped, and counted."""


class NoJournal:
    """Keeps nothing."""

    def record(self, answer: Answer) -> None:
        """Forget the answer."""


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


def _answer(served: ServedModel, rows: Sequence[Sequence[float]], risks: list[float]) -> Answer:
    return Answer(time.time(), served, [new_id() for _ in risks], rows, risks)


class Answers:
    """Predicts with a model, counts the predictions and records them in the journal."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.journal: Journal = NoJournal()

    def single(self, served: ServedModel, request: Request, probe: bool = False) -> Answer:
        """Predict one request; only for the thread of the event loop. A probe is neither counted nor journalled."""
        started = time.perf_counter()
        row = compute_one(request, served.bundle.lookups)
        risks = [served.bundle.booster.predict_single(row)]
        return _answer(served, [row], risks) if probe else self._done(served, started, [row], risks)

    def many(self, served: ServedModel, requests: Sequence[Request]) -> Answer:
        """Predict requests together, in their order."""
        started = time.perf_counter()
        matrix = compute(columns(requests), served.bundle.lookups)
        risks: list[float] = predict(served.bundle.booster, matrix).tolist()
        return self._done(served, started, matrix.tolist(), risks)

    def _done(self, served: ServedModel, started: float, rows: Sequence[Sequence[float]], risks: list[float]) -> Answer:
        answer = _answer(served, rows, risks)
        self.metrics.model.answered(served, time.perf_counter() - started, rows, risks)
        self.journal.record(answer)
        return answer
