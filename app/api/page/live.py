"""The last minutes of the service: its own counters, sampled at fixed intervals."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from app.metrics import LATENCY_BUCKETS, Metrics
from app.settings import Settings

SECONDS = 5.0
"""Between two samples."""
KEPT = 181
"""Samples: 15 minutes."""
RECENT = 60
"""Intervals over which the figures are computed: 5 minutes."""
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
COUNTED = (
    "http_requests_total",
    "http_request_duration_highr_seconds_bucket",
    "model_predictions_total",
    "model_probability_count",
    "model_probability_sum",
    "model_feature_unseen_total",
    "model_feature_missing_total",
    "journal_dropped_total",
    "journal_queue_depth",
    "journal_up",
)


class Sample(NamedTuple):
    """The counters at one time; `buckets` are cumulative, those of `LATENCY_BUCKETS` and infinity."""

    time: float
    requests: float
    client_errors: float
    server_errors: float
    buckets: tuple[float, ...]
    predictions: float
    alerts: float
    probability: float
    unseen: float
    missing: float


class Recent:
    """Keeps samples of the metrics of a service."""

    def __init__(self, metrics: Metrics, settings: Settings) -> None:
        self._metrics, self._journal = metrics, bool(settings.journal_url)
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._state: defaultdict[str, float] = defaultdict(float)

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            await asyncio.to_thread(self.sample, time.time())
            await asyncio.sleep(SECONDS)

    def sample(self, now: float) -> None:
        """Take a sample; `now` is in seconds since 1970."""
        found: defaultdict[str, float] = defaultdict(float)
        buckets: dict[float, float] = dict.fromkeys((*LATENCY_BUCKETS, float("inf")), 0.0)
        for metric in self._metrics.collect(COUNTED):
            for name, labels, value, *_ in metric.samples:
                if name == "http_request_duration_highr_seconds_bucket":
                    buckets[float(labels["le"])] += value
                found[name] += value
                found[f"{name} {labels.get('status') or labels.get('outcome')}"] += value
        self._state = found
        self._samples.append(
            Sample(
                time=now,
                requests=found["http_requests_total"],
                client_errors=found["http_requests_total 4xx"],
                server_errors=found["http_requests_total 5xx"],
                buckets=tuple(buckets.values()),
                predictions=found["model_probability_count"],
                alerts=found["model_predictions_total alert"],
                probability=found["model_probability_sum"],
                unseen=found["model_feature_unseen_total"],
                missing=found["model_feature_missing_total"],
            )
        )

    def facts(self) -> dict[str, Any]:
        """Return the figures of the last minutes, and the series from which the page draws its curves."""
        samples = list(self._samples)
        return {
            "seconds": SECONDS,
            "recent": _figures(samples[-RECENT - 1 :]),
            "series": _series(samples),
            "journal": self._journal_state(),
        }

    def _journal_state(self) -> dict[str, Any]:
        if not self._journal:
            return {"state": "off"}
        up, waiting = self._state["journal_up"] >= 1, self._state["journal_queue_depth"]
        return {"state": "up" if up else "down", "waiting": waiting, "dropped": self._state["journal_dropped_total"]}


def quantile(share: float, buckets: Sequence[float]) -> float | None:
    """Return a quantile of the latency in seconds by linear interpolation, as PromQL's `histogram_quantile`.

    `buckets` are cumulative counts, those of `LATENCY_BUCKETS` and infinity. None without requests; the largest bound
    for a quantile beyond it.
    """
    rank, bounds = share * buckets[-1], (0.0, *LATENCY_BUCKETS)
    if not buckets[-1]:
        return None
    for i, count in enumerate(buckets[:-1]):
        if count >= rank:
            below = buckets[i - 1] if i else 0.0
            part = (rank - below) / (count - below) if count > below else 1.0
            return bounds[i] + (bounds[i + 1] - bounds[i]) * part
    return LATENCY_BUCKETS[-1]


def _figures(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return what happened between the first and the last sample."""
    if len(samples) < 2:
        return {"seconds": 0.0}  # the service has just started
    first, last = samples[0], samples[-1]
    grown = Sample(*(_grown(one, other) for one, other in zip(first, last, strict=True)))
    return {
        "seconds": grown.time,
        "requests": grown.requests,
        "per_second": grown.requests / grown.time,
        "client_errors": grown.client_errors,
        "server_errors": grown.server_errors,
        **{name: quantile(part, grown.buckets) for name, part in QUANTILES.items()},
        "predictions": grown.predictions,
        "alert_share": _share(grown.alerts, grown.predictions),
        "mean_probability": _share(grown.probability, grown.predictions),
        "unseen": grown.unseen,
        "missing": _share(grown.missing, grown.predictions),
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _grown(before: Any, after: Any) -> Any:
    """Return by how much a counter, or each of several, has grown."""
    return tuple(b - a for a, b in zip(before, after, strict=True)) if isinstance(after, tuple) else after - before


def _series(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    parts = [_figures(pair) for pair in zip(samples, samples[1:], strict=False)]
    return {
        "time": [sample.time for sample in samples[1:]],
        **{name: [part[name] for part in parts] for name in ("per_second", "p95", "alert_share")},
    }
