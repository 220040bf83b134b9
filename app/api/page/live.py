"""The last minutes of the service: its own counters, sampled at fixed intervals."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

from app.metrics import Metrics
from app.settings import Settings

SECONDS = 5.0
"""Between two samples."""
KEPT = 61
"""Samples: 5 minutes."""
COUNTED = {
    "requests": ("http_requests_total", ""),
    "client_errors": ("http_requests_total", "4xx"),
    "server_errors": ("http_requests_total", "5xx"),
    "predictions": ("model_probability_count", ""),
    "alerts": ("model_predictions_total", "alert"),
    "probability": ("model_probability_sum", ""),
    "unseen": ("model_feature_unseen_total", ""),
    "missing": ("model_feature_missing_total", ""),
    "dropped": ("journal_dropped_total", ""),
    "waiting": ("journal_queue_depth", ""),
    "up": ("journal_up", ""),
}
"""The sample of each figure, and its status or outcome; without one, the sum of all."""


class Recent:
    """Keeps samples of the metrics of a service."""

    def __init__(self, metrics: Metrics, settings: Settings) -> None:
        self._metrics = metrics
        self._journal = bool(settings.journal_url)
        self._samples: deque[dict[str, float]] = deque(maxlen=KEPT)

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            await asyncio.to_thread(self.sample, time.time())
            await asyncio.sleep(SECONDS)

    def sample(self, now: float) -> None:
        """Take a sample; `now` is in seconds since 1970."""
        sample = dict.fromkeys(COUNTED, 0.0)
        for metric in self._metrics.collect({name for name, _ in COUNTED.values()}):
            for name, labels, value, *_ in metric.samples:
                part = labels.get("status") or labels.get("outcome")
                for figure, (counted, only) in COUNTED.items():
                    if name == counted and only in ("", part):
                        sample[figure] += value
        self._samples.append(sample | {"time": now})

    def facts(self) -> dict[str, Any]:
        """Return the changes between the first and the last sample, and the state of the journal."""
        if len(self._samples) < 2:
            return {"recent": {"seconds": 0.0}, "journal": {"state": "off"}}  # the service has just started
        first, last = self._samples[0], self._samples[-1]
        grown = {name: last[name] - first[name] for name in last}
        recent = {name: grown[name] for name in ("requests", "client_errors", "server_errors", "predictions", "unseen")}
        recent["seconds"] = grown["time"]
        recent["per_second"] = grown["requests"] / grown["time"]
        predictions = grown["predictions"]
        shares = {"alert_share": "alerts", "mean_probability": "probability", "missing": "missing"}
        by_prediction = {name: grown[part] / predictions if predictions else None for name, part in shares.items()}
        journal = {"state": "off"} if not self._journal else _journal_state(last)
        return {"recent": recent | by_prediction, "journal": journal}


def _journal_state(sample: dict[str, float]) -> dict[str, Any]:
    state = "up" if sample["up"] >= 1 else "down"
    return {"state": state, "waiting": sample["waiting"], "dropped": sample["dropped"]}
