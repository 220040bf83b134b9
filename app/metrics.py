"""Prometheus metrics of HTTP requests, the model and the journal."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from math import isfinite, isnan
from typing import Any, Literal

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_fastapi_instrumentator import Instrumentator
from prometheus_fastapi_instrumentator.metrics import Info

from app.features import Floats
from app.interface import CATEGORIES, FEATURE_NAMES, NUMBERS
from app.model.served import ServedModel
from app.settings import WORKERS_FOLDER

# fmt: off
LATENCY_BUCKETS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10,
)
HANDLER_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
INFERENCE_BUCKETS = (0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
PROBABILITY_BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
# fmt: on
OUTSIDE_OF_METRICS = ("/$", "/page/", "/metrics", "/livez", "/readyz", "/v2/health", "/static-offline-docs")
disable_created_metrics()  # type: ignore[no-untyped-call] # the *_created series are not used

REJECTIONS = ("body_too_large", "too_many_in_progress", "timeout", "unauthorized", "method")


class Family:
    """Creates metrics in one registry, for one worker or several."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, text: str, **labels: Sequence[str]) -> Counter:
        """Return a counter, with its series initialised to zero for the label values that are known."""
        counter = Counter(name, text, list(labels), registry=self._registry)
        if len(labels) == 1:
            for value in next(iter(labels.values())):
                counter.labels(value)
        return counter

    def gauge(
        self, name: str, text: str, *labels: str, workers: Literal["livesum", "livemin", "livemax"] = "livemax"
    ) -> Gauge:
        """Return a gauge; `workers` is how the values of several workers are aggregated."""
        return Gauge(name, text, labels, registry=self._registry, multiprocess_mode=workers)

    def histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float]) -> Histogram:
        """Return a histogram."""
        return Histogram(name, text, labels, registry=self._registry, buckets=buckets)


class Observer:
    """Observes values in a histogram, in a third of the time of its own `observe`, or many at once."""

    def __init__(self, histogram: Histogram) -> None:
        # pylint: disable=protected-access # tests/unit/test_observer.py compares the results with those of `observe`
        self._bounds, self._add = histogram._upper_bounds, histogram._sum.inc
        self._count = [bucket.inc for bucket in histogram._buckets]

    def one(self, value: float) -> None:
        """Observe a value."""
        self._add(value)
        self._count[bisect_left(self._bounds, value)](1)

    def many(self, values: Floats) -> None:
        """Observe an array of values."""
        self._add(float(values.sum()))
        counts = np.bincount(np.searchsorted(self._bounds, values, "left"), minlength=len(self._count))
        for add, count in zip(self._count, counts.tolist(), strict=True):
            if count:
                add(count)


class HttpMetrics(Family):
    """Metrics of requests, with the names and labels of the instrumentator."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self._requests = self.counter(
            "http_requests", "Requests by handler, method and status class.", handler=(), method=(), status=()
        )
        latency = "http_request_duration_highr_seconds", "Request duration, all routes."
        self._latency = Observer(self.histogram(*latency, buckets=LATENCY_BUCKETS))
        self._latency_by_handler = self.histogram(
            "http_request_duration_seconds", "Request duration.", "handler", "method", buckets=HANDLER_BUCKETS
        )
        self.in_progress = self.gauge("http_requests_in_progress", "Requests in progress.", workers="livesum")
        self.rejected = self.counter("http_requests_rejected", "Requests rejected.", reason=REJECTIONS)
        self._recorders: dict[tuple[str, str, str], tuple[Callable[[], None], Callable[[float], None]]] = {}

    def request(self, handler: str, method: str, status: str, seconds: float) -> None:
        """Count one request; `status` is the class, for example 2xx."""
        key = (handler, method, status)
        if key not in self._recorders:
            by_handler = Observer(self._latency_by_handler.labels(handler, method))
            self._recorders[key] = self._requests.labels(*key).inc, by_handler.one
        count, observe = self._recorders[key]
        count()
        observe(seconds)
        self._latency.one(seconds)


class ModelMetrics(Family):
    """Metrics of the served model and its predictions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self._inference = self.histogram(
            "model_inference_seconds",
            "Time from the validated request to the prediction.",
            "model_version",
            buckets=INFERENCE_BUCKETS,
        )
        self._predictions = self.counter("model_predictions", "Predictions made.", model_version=(), outcome=())
        self._probability = self.histogram(
            "model_probability", "Predicted probabilities.", "model_version", buckets=PROBABILITY_BUCKETS
        )
        unseen = self.counter(
            "model_feature_unseen", "Category values that are not in the vocabulary.", feature=CATEGORIES
        )
        missing = self.counter("model_feature_missing", "Missing feature values.", feature=NUMBERS)
        self._gaps = [(unseen if name in CATEGORIES else missing).labels(name) for name in FEATURE_NAMES]
        self._info = self.gauge(
            "model_info", "1 for the served version.", "name", "version", "alias", "run_id", "source"
        )
        self._ready = self.gauge("model_ready", "Whether a verified model is loaded.", workers="livemin")
        self._loaded = self.gauge("model_loaded_timestamp_seconds", "Unix time at which the model was loaded.")
        self._created = self.gauge("model_created_timestamp_seconds", "Unix time at which the version was registered.")
        self._served: tuple[str, ...] | None = None
        self._versions: dict[str, tuple[Observer, Observer, Counter, Counter]] = {}

    def serving(self, served: ServedModel) -> None:
        """Export the served version and initialise its counters, so that rates start at zero."""
        self._clear()
        self._served = (served.name, served.version, served.alias, served.run_id or "", served.source)
        self._info.labels(*self._served).set(1)
        self._ready.set(1)
        self._loaded.set(served.loaded)
        self._created.set(served.created or 0)
        self._of(served.version)

    def withdrawn(self) -> None:
        """Export that no version is served."""
        self._clear()
        self._ready.set(0)

    def _clear(self) -> None:
        if self._served:
            self._info.labels(*self._served).set(0)  # with several workers, a series cannot be removed
            if WORKERS_FOLDER not in os.environ:
                self._info.clear()
        self._served = None

    def observe(self, served: ServedModel, seconds: float, row: Sequence[float], risk: float) -> None:
        """Record one prediction: its features, k numbers, and its probability."""
        inference, probability, alert, no_alert = self._of(served.version)
        inference.one(seconds)
        (alert if risk >= served.bundle.threshold else no_alert).inc()
        probability.one(risk)
        if not isfinite(sum(row)):  # as soon as one value is missing
            for value, gaps in zip(row, self._gaps, strict=True):
                if isnan(value):
                    gaps.inc()

    def observe_many(self, served: ServedModel, seconds: float, rows: Floats, risks: Floats) -> None:
        """Record the predictions of a batch: features, shape (n, k), and probabilities, shape (n,)."""
        inference, probability, alert, no_alert = self._of(served.version)
        inference.one(seconds)
        alerts = int((risks >= served.bundle.threshold).sum())
        alert.inc(alerts)
        no_alert.inc(len(risks) - alerts)
        probability.many(risks)
        for gaps, missing in zip(self._gaps, np.isnan(rows).sum(axis=0).tolist(), strict=True):
            if missing:
                gaps.inc(missing)

    def _of(self, version: str) -> tuple[Observer, Observer, Counter, Counter]:
        """Return the series of a version: inference time, probability, alerts, other predictions."""
        if version not in self._versions:
            self._versions[version] = (
                Observer(self._inference.labels(version)),
                Observer(self._probability.labels(version)),
                self._predictions.labels(version, "alert"),
                self._predictions.labels(version, "no_alert"),
            )
        return self._versions[version]


class ReloadMetrics(Family):
    """Metrics of the polls of the alias."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        results = ("swapped", "failed", "unchanged")
        self.results = self.counter("model_reloads", "Polls of the alias.", result=results)
        self.last_success = self.gauge(
            "model_reload_last_success_timestamp_seconds", "Unix time of the last successful poll of the alias."
        )


class JournalMetrics(Family):
    """Metrics of the journal's queue and of the reported outcomes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self.depth = self.gauge("journal_queue_depth", "Predictions waiting to be written.", workers="livesum")
        self.capacity = self.gauge(
            "journal_queue_capacity", "Capacity of the queue, in predictions.", workers="livesum"
        )
        self.written = self.counter("journal_written", "Predictions written.")
        self.dropped = self.counter("journal_dropped", "Predictions dropped because the queue was full.")
        self.up = self.gauge(
            "journal_up", "Whether the database is reachable and accepted the last write.", workers="livemin"
        )
        self.replaced = self.counter("journal_replaced", "Times that the database was found removed or replaced.")
        self.lost = self.counter("journal_lost", "Predictions written to a database before it was removed or replaced.")
        self.outcomes = self.counter("model_outcomes", "Outcomes reported.", outcome=("negative", "positive"))


class Metrics:
    """The metrics of one application, in a separate registry, so that a process can have several applications."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.http = HttpMetrics(self.registry)
        self.model = ModelMetrics(self.registry)
        self.reloads = ReloadMetrics(self.registry)
        self.journal = JournalMetrics(self.registry)
        if WORKERS_FOLDER not in os.environ:
            ProcessCollector(registry=self.registry)

    def instrumentator(self) -> Instrumentator:
        """Return the instrumentator of FastAPI's routes, which records into the same metrics as the fast path."""
        excluded = [f"^{path}" for path in OUTSIDE_OF_METRICS]
        instrumentator = Instrumentator(excluded_handlers=excluded, registry=self.registry)

        def count(info: Info) -> None:
            self.http.request(info.modified_handler, info.method, info.modified_status, info.modified_duration)

        return instrumentator.add(count)

    def exposition(self) -> bytes:
        """Return the exposition text: of this process, or aggregated over all workers."""
        return generate_latest(self._exported())

    def collect(self, names: Collection[str]) -> Iterable[Metric]:
        """Return the metrics that have samples of these names: of this process, or aggregated over all workers."""
        found: Iterable[Metric] = self._exported(names).collect()
        return found

    def _exported(self, names: Collection[str] = ()) -> Any:
        """Return the registry that is exported; of a single process, restricted to these metrics if there are any."""
        folder = os.environ.get(WORKERS_FOLDER)
        if folder is None:
            return self.registry.restricted_registry(names) if names else self.registry
        for file in os.listdir(folder):
            pid = file.rpartition("_")[2].removesuffix(".db")
            if file.startswith("gauge_live") and not os.path.exists(f"/proc/{pid}"):
                mark_process_dead(int(pid))  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        _Workers(registry)  # type: ignore[no-untyped-call]
        return registry


class _Workers(MultiProcessCollector):
    """The aggregated metrics of all workers, without previously served versions."""

    def collect(self) -> Iterable[Metric]:
        for metric in super().collect():  # type: ignore[no-untyped-call]
            if metric.name == "model_info":
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric
