"""Prometheus metrics of HTTP requests, the model and the journal.

Requests only append their observations to a queue. `Metrics.observe` adds them to the counters and histograms, many at
once: several times a second in another thread, and before each scrape, which therefore misses nothing of its process.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from threading import Lock
from typing import Any

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from prometheus_fastapi_instrumentator import Instrumentator
from prometheus_fastapi_instrumentator.metrics import Info

from app.interface import CATEGORIES, FEATURE_NAMES, NUMBERS
from app.model.served import ServedModel
from app.problem_kit.features import Floats
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
OBSERVE_SECONDS = 0.1
WAITING = 5000
"""Observations in a queue; the request that would exceed it observes them itself."""


class Histogram(Collector):
    """A histogram that observes many values at once, which prometheus_client's cannot.

    Its values are the library's, which are in files if several workers share them.
    """

    def __init__(
        self, registry: CollectorRegistry, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]
    ):
        self._name, self._text, self._labelnames = name, text, tuple(labels)
        self._bounds = (*bounds, float("inf"))
        self._texts = [floatToGoString(bound) for bound in self._bounds]  # type: ignore[no-untyped-call]
        self._series: dict[tuple[str, ...], tuple[Any, list[Any]]] = {}
        registry.register(self)

    def series(self, *labels: str) -> tuple[Any, list[Any]]:
        """Return the sum and the buckets of a series; a new one starts at zero."""
        if labels not in self._series:
            of_series = self._labelnames, labels, self._text
            total = values.ValueClass("histogram", self._name, f"{self._name}_sum", *of_series)
            buckets = []
            for text in self._texts:
                of_bucket = (*self._labelnames, "le"), (*labels, text), self._text
                buckets.append(values.ValueClass("histogram", self._name, f"{self._name}_bucket", *of_bucket))
            self._series.setdefault(labels, (total, buckets))
        return self._series[labels]

    def observe(self, observed: Floats, *labels: str) -> None:
        """Observe an array of values in one series."""
        total, buckets = self.series(*labels)
        total.inc(float(observed.sum()))
        counts = np.bincount(np.searchsorted(self._bounds, observed), minlength=len(buckets))
        for bucket, count in zip(buckets, counts.tolist(), strict=True):
            if count:
                bucket.inc(count)

    def collect(self) -> Iterable[Metric]:
        """Return the series of this process, with cumulative buckets."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labelnames)
        for labels, (total, buckets) in list(self._series.items()):
            counts = accumulate(bucket.get() for bucket in buckets)
            family.add_metric(labels, list(zip(self._texts, counts, strict=True)), total.get())
        return [family]

    describe = collect  # from which the registry knows the names


class Waiting:
    """Observations that wait, by series."""

    def __init__(self) -> None:
        self._queues: defaultdict[Any, deque[Any]] = defaultdict(deque)
        self._lock = Lock()

    def put(self, series: Any, observation: Any) -> bool:
        """Append an observation; return whether the queue is so long that the caller has to observe it."""
        queue = self._queues[series]
        queue.append(observation)
        return len(queue) > WAITING

    def take(self) -> Iterator[tuple[Any, list[Any]]]:
        """Remove the observations, and yield them by series."""
        for series, queue in list(self._queues.items()):
            with self._lock:
                taken = [queue.popleft() for _ in range(len(queue))]
            if taken:
                yield series, taken


def labelled(registry: CollectorRegistry, name: str, text: str, label: str, known: Sequence[str]) -> Counter:
    """Return a counter by a label whose values are known, with a series for each, from zero."""
    counter = Counter(name, text, [label], registry=registry)
    for value in known:
        counter.labels(value)
    return counter


class HttpMetrics:
    """Metrics of requests, with the names and labels of the instrumentator."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "http_requests",
            "Requests by handler, method and status class.",
            ["handler", "method", "status"],
            registry=registry,
        )
        latency = "http_request_duration_highr_seconds", "Request duration, all routes."
        self._latency = Histogram(registry, *latency, (), LATENCY_BUCKETS)
        self._latency.series()
        by_handler = "http_request_duration_seconds", "Request duration."
        self._latency_by_handler = Histogram(registry, *by_handler, ("handler", "method"), HANDLER_BUCKETS)
        self.in_progress = Gauge(
            "http_requests_in_progress", "Requests in progress.", registry=registry, multiprocess_mode="livesum"
        )
        self.rejected = labelled(registry, "http_requests_rejected", "Requests rejected.", "reason", REJECTIONS)
        self._waiting = Waiting()

    def request(self, handler: str, method: str, status: str, seconds: float) -> None:
        """Queue one request; `status` is the class, for example 2xx."""
        if self._waiting.put((handler, method, status), seconds):
            self.observe()

    def observe(self) -> None:
        """Count the requests in the queue."""
        for (handler, method, status), seconds in self._waiting.take():
            self._requests.labels(handler, method, status).inc(len(seconds))
            self._latency_by_handler.observe(np.array(seconds), handler, method)
            self._latency.observe(np.array(seconds))


class ModelMetrics:
    """Metrics of the served model and its predictions."""

    def __init__(self, registry: CollectorRegistry) -> None:
        inference = "model_inference_seconds", "Time from the validated request to the prediction."
        self._inference = Histogram(registry, *inference, ("model_version",), INFERENCE_BUCKETS)
        probability = "model_probability", "Predicted probabilities."
        self._probability = Histogram(registry, *probability, ("model_version",), PROBABILITY_BUCKETS)
        labels = ["model_version", "outcome"]
        self._predictions = Counter("model_predictions", "Predictions made.", labels, registry=registry)
        unseen = "model_feature_unseen", "Category values that are not in the vocabulary.", "feature"
        missing = "model_feature_missing", "Missing feature values.", "feature"
        gaps = {True: labelled(registry, *unseen, CATEGORIES), False: labelled(registry, *missing, NUMBERS)}
        self._gaps = [gaps[name in CATEGORIES].labels(name) for name in FEATURE_NAMES]
        newest = partial(Gauge, registry=registry, multiprocess_mode="livemax")
        self._info = newest("model_info", "1 for the served version.", ["name", "version", "alias", "run_id", "source"])
        self._loaded = newest("model_loaded_timestamp_seconds", "Unix time at which the model was loaded.")
        self._created = newest("model_created_timestamp_seconds", "Unix time at which the version was registered.")
        ready = "model_ready", "Whether a verified model is loaded."
        self._ready = Gauge(*ready, registry=registry, multiprocess_mode="livemin")
        self._served: tuple[str, ...] | None = None
        self._waiting = Waiting()

    def serving(self, served: ServedModel) -> None:
        """Export the served version and initialise its counters, so that rates start at zero."""
        self._clear()
        self._served = (served.name, served.version, served.alias, served.run_id or "", served.source)
        self._info.labels(*self._served).set(1)
        self._ready.set(1)
        self._loaded.set(served.loaded)
        self._created.set(served.created or 0)
        self._inference.series(served.version)
        self._probability.series(served.version)
        for outcome in ("alert", "no_alert"):
            self._predictions.labels(served.version, outcome)

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

    def queue(self, served: ServedModel, seconds: float, row: Sequence[float], risk: float) -> None:
        """Queue one prediction: its features, k numbers, and its probability."""
        if self._waiting.put(served.version, (seconds, row, risk, risk >= served.bundle.threshold)):
            self.observe()

    def observe(self) -> None:
        """Observe the predictions in the queue."""
        for version, predictions in self._waiting.take():
            seconds, rows, risks, alerts = zip(*predictions, strict=True)
            self._observe(version, np.array(seconds), np.array(rows), np.array(risks), sum(alerts))

    def observe_batch(self, served: ServedModel, seconds: float, rows: Floats, risks: Floats) -> None:
        """Observe the predictions of a batch: features, shape (n, k), and probabilities, shape (n,)."""
        alerts = int((risks >= served.bundle.threshold).sum())
        self._observe(served.version, np.array([seconds]), rows, risks, alerts)

    def _observe(self, version: str, seconds: Floats, rows: Floats, risks: Floats, alerts: int) -> None:
        self._inference.observe(seconds, version)
        self._probability.observe(risks, version)
        self._predictions.labels(version, "alert").inc(alerts)
        self._predictions.labels(version, "no_alert").inc(len(risks) - alerts)
        for gaps, missing in zip(self._gaps, np.isnan(rows).sum(axis=0).tolist(), strict=True):
            if missing:
                gaps.inc(missing)


class ReloadMetrics:
    """Metrics of the polls of the alias."""

    def __init__(self, registry: CollectorRegistry) -> None:
        results = ("swapped", "failed", "unchanged")
        self.results = labelled(registry, "model_reloads", "Polls of the alias.", "result", results)
        last = "model_reload_last_success_timestamp_seconds", "Unix time of the last successful poll of the alias."
        self.last_success = Gauge(*last, registry=registry, multiprocess_mode="livemax")


class JournalMetrics:
    """Metrics of the journal's queue and of the reported outcomes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        total = partial(Gauge, registry=registry, multiprocess_mode="livesum")
        self.depth = total("journal_queue_depth", "Predictions waiting to be written.")
        self.capacity = total("journal_queue_capacity", "Capacity of the queue, in predictions.")
        up = "journal_up", "Whether the database is reachable and accepted the last write."
        self.up = Gauge(*up, registry=registry, multiprocess_mode="livemin")
        self.written = counter("journal_written", "Predictions written.")
        self.dropped = counter("journal_dropped", "Predictions dropped because the queue was full.")
        self.replaced = counter("journal_replaced", "Times that the database was found removed or replaced.")
        self.lost = counter("journal_lost", "Predictions written to a database before it was removed or replaced.")
        self.outcomes = labelled(registry, "model_outcomes", "Outcomes reported.", "outcome", ("negative", "positive"))


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

    async def run(self) -> None:
        """Observe what waits, several times a second, until cancelled."""
        while True:
            await asyncio.sleep(OBSERVE_SECONDS)
            await asyncio.to_thread(self.observe)

    def observe(self) -> None:
        """Observe the requests and predictions in the queues."""
        self.http.observe()
        self.model.observe()

    def exposition(self) -> bytes:
        """Return the exposition text: of this process, or aggregated over all workers."""
        return generate_latest(self._exported())

    def collect(self, names: Collection[str]) -> Iterable[Metric]:
        """Return the metrics that have samples of these names: of this process, or aggregated over all workers."""
        found: Iterable[Metric] = self._exported(names).collect()
        return found

    def _exported(self, names: Collection[str] = ()) -> Any:
        """Return the registry that is exported; of a single process, restricted to these metrics if there are any."""
        self.observe()
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
