"""What Prometheus scrapes: the instrumentator's HTTP metrics with buckets that fit, and the model's own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_fastapi_instrumentator import Instrumentator, metrics

from app.registry import ServedModel

LATENCY_BUCKETS = (
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.025,
    0.05,
    0.075,
    0.1,
    0.15,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
)
HANDLER_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
INFERENCE_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
OUTSIDE_OF_METRICS = ["^/metrics$", "^/livez$", "^/readyz$", "^/static-offline-docs"]


class Metrics:
    """The metrics of one application, in a registry of its own, so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.inference_seconds = Histogram(
            "model_inference_seconds",
            "Time from parsed request to probabilities.",
            ["model_version"],
            buckets=INFERENCE_BUCKETS,
            registry=self.registry,
        )
        self.predictions = Counter(
            "model_predictions", "Flights answered, by outcome.", ["model_version", "outcome"], registry=self.registry
        )
        self.info = Gauge(
            "model_info", "The version that is served.", ["name", "version", "alias", "run_id"], registry=self.registry
        )

    def instrumentator(self) -> Instrumentator:
        """Return the instrumentator of the HTTP layer."""
        instrumentator = Instrumentator(excluded_handlers=OUTSIDE_OF_METRICS, registry=self.registry)
        instrumentator.add(
            metrics.default(
                latency_highr_buckets=LATENCY_BUCKETS, latency_lowr_buckets=HANDLER_BUCKETS, registry=self.registry
            )
        )
        return instrumentator

    def serving(self, served: ServedModel) -> None:
        """Say which version is served; its counters exist from now on, so that rates start at zero."""
        self.info.clear()
        self.info.labels(served.name, served.version, served.alias, served.run_id or "").set(1)
        for outcome in ("alert", "no_alert"):
            self.predictions.labels(served.version, outcome)

    def answered(self, version: str, seconds: float, alerts: int, flights: int) -> None:
        """Count one answer."""
        self.inference_seconds.labels(version).observe(seconds)
        self.predictions.labels(version, "alert").inc(alerts)
        self.predictions.labels(version, "no_alert").inc(flights - alerts)
