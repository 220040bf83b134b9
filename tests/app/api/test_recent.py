"""The figures of the last minutes, from the metrics."""

from __future__ import annotations

import pytest

from app.api.page import live
from app.metrics import Metrics
from app.settings import Settings


@pytest.fixture
def metrics() -> Metrics:
    """The metrics of a new service."""
    return Metrics()


@pytest.fixture
def recent(metrics: Metrics) -> live.Recent:
    """The samples of that service, none yet."""
    return live.Recent(metrics, Settings(journal_url="none"))


def test_figures_are_of_the_time_between_samples(metrics: Metrics, recent: live.Recent) -> None:
    assert recent.facts()["recent"] == {"seconds": 0.0}
    metrics.http.request("/predict", "POST", "5xx", 3.0)  # before the first sample
    recent.sample(100)
    for _ in range(10):
        metrics.http.request("/predict", "POST", "2xx", 0.004)
    recent.sample(105)
    metrics.http.request("/predict", "POST", "4xx", 0.004)
    metrics.http.request("/predict/batch", "POST", "5xx", 0.004)
    recent.sample(110)
    figures = recent.facts()["recent"]
    assert (figures["seconds"], figures["requests"], figures["per_second"]) == (10, 12, 1.2)
    assert (figures["client_errors"], figures["server_errors"]) == (1, 1)
    assert figures["predictions"] == 0 and figures["alert_share"] is None  # no division by zero
    assert recent.facts()["journal"] == {"state": "off"}


def test_only_the_last_samples_are_kept(metrics: Metrics, recent: live.Recent) -> None:
    for now in range(100):
        metrics.http.request("/predict", "POST", "2xx", 0.004)
        recent.sample(now)
    assert recent.facts()["recent"]["requests"] == live.KEPT - 1
