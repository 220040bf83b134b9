"""The figures of the last minutes, from the metrics."""

from __future__ import annotations

import numpy as np
import pytest

from app.api.page import live
from app.metrics import LATENCY_BUCKETS, Metrics
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
    metrics.http.request("/predict", "POST", "5xx", 3.0)  # before the first sample
    recent.sample(100)
    for seconds in [0.004] * 8 + [0.2, 0.2]:
        metrics.http.request("/predict", "POST", "2xx", seconds)
    recent.sample(105)
    metrics.http.request("/predict", "POST", "4xx", 0.004)
    metrics.http.request("/predict/batch", "POST", "5xx", 0.004)
    recent.sample(110)
    found = recent.facts()
    figures = found["recent"]
    assert (figures["seconds"], figures["requests"], figures["per_second"]) == (10, 12, 1.2)
    assert (figures["client_errors"], figures["server_errors"]) == (1, 1)
    assert 0.003 < figures["p50"] <= 0.005 and 0.15 < figures["p95"] <= 0.25
    assert found["series"] == {
        "time": [105, 110],
        "per_second": [2, 0.4],
        "p95": [pytest.approx(0.225), pytest.approx(0.0049)],
        "alert_share": [None, None],
    }
    assert found["journal"] == {"state": "off"}


def test_without_requests_there_are_no_quantiles_and_no_division_by_zero(recent: live.Recent) -> None:
    assert recent.facts()["recent"] == {"seconds": 0.0}
    recent.sample(100)
    recent.sample(105)
    figures = recent.facts()["recent"]
    assert figures["requests"] == 0 and figures["p99"] is None and figures["alert_share"] is None


def test_only_the_last_samples_are_kept(recent: live.Recent) -> None:
    for now in range(live.KEPT + 20):
        recent.sample(now)
    assert len(recent.facts()["series"]["time"]) == live.KEPT - 1


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 0.99, 1.0])
def test_a_quantile_is_in_the_bucket_of_the_true_one(share: float) -> None:
    values = np.random.default_rng(1).lognormal(-6, 1.5, 5000)
    bounds = np.array([*LATENCY_BUCKETS, np.inf])
    found = live.quantile(share, [int((values <= bound).sum()) for bound in bounds])
    true = float(np.quantile(values, share, method="inverted_cdf"))
    assert found is not None
    assert np.searchsorted(LATENCY_BUCKETS, found) == min(
        np.searchsorted(LATENCY_BUCKETS, true), len(LATENCY_BUCKETS) - 1
    )


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert live.quantile(0.5, [0] * len(LATENCY_BUCKETS) + [3]) == LATENCY_BUCKETS[-1]
