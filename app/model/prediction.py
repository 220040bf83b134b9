"""From validated flights to predictions: computed, counted, journalled, and written as JSON."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from app.api.schemas import Contribution, Explanation, Flight
from app.metrics import Metrics
from app.model.bundle import Bundle, predict, to_flights, to_single
from app.model.served import ServedModel
from app.problem.features import compute, compute_single


class Answer(NamedTuple):
    """What one request was answered, as the journal takes it."""

    created: float
    """Seconds since 1970."""
    served: ServedModel
    ids: list[str]
    rows: Sequence[Sequence[float]]
    """The features, shape (n, 26), columns as in `FEATURES`."""
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
    """Answers flights with a model; counts and journals what it answered."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.journal: Journal = NoJournal()

    def single(self, served: ServedModel, flight: Flight, probe: bool = False) -> Answer:
        """Answer one flight; only for the thread of the event loop. A probe is neither counted nor journalled."""
        started = time.perf_counter()
        row = compute_single(to_single(flight), served.bundle.tables)
        risks = [served.bundle.booster.predict_single(row)]
        return _answer(served, [row], risks) if probe else self._done(served, started, [row], risks)

    def many(self, served: ServedModel, flights: Sequence[Flight]) -> Answer:
        """Answer flights together, in their order."""
        started = time.perf_counter()
        matrix = compute(to_flights(flights), served.bundle.tables)
        risks: list[float] = predict(served.bundle.booster, matrix).tolist()
        return self._done(served, started, matrix.tolist(), risks)

    def _done(self, served: ServedModel, started: float, rows: Sequence[Sequence[float]], risks: list[float]) -> Answer:
        answer = _answer(served, rows, risks)
        self.metrics.model.answered(served, time.perf_counter() - started, rows, risks)
        self.journal.record(answer)
        return answer
