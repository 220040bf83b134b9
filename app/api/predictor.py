"""Predict validated requests with the served model; count the predictions and record them in the journal.

The fast path, FastAPI's routes and the Open Inference Protocol all predict here, so that none of them can forget to
count or to record.
"""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

from app.batches.received import Received, body_to_keep
from app.interface import Request, compute, compute_one
from app.metrics import Metrics
from app.model.bundles import predict
from app.model.prediction import Predictions, new_ids
from app.model.served import ServedModel


class Journal(Protocol):
    """A sink of predictions."""

    def record(self, batch: Predictions) -> None:
        """Queue predictions without blocking; drop and count them when the queue is full."""


class NoJournal:
    """A sink that discards predictions."""

    def record(self, batch: Predictions) -> None:
        """Discard the predictions."""


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
        received = body_to_keep(batch, len(risks))
        requests = () if received else list(batch.requests)
        ids = new_ids(now, len(risks))
        predictions = Predictions(now, served, ids, matrix, risks.tolist(), requests, received, batch.format)
        self.metrics.model.observe_batch(served, time.perf_counter() - started, matrix, risks)
        self.journal.record(predictions)
        return predictions
