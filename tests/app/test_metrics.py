"""Observations in a histogram, one batch or several, equal those of prometheus_client."""

from __future__ import annotations

import numpy as np
import prometheus_client
import pytest
from hypothesis import given, strategies
from prometheus_client import CollectorRegistry

from app.metrics import WAITING, Histogram, Metrics

BOUNDS = (0.05, 0.1, 0.9)


@given(
    values=strategies.lists(
        strategies.floats(-1, 2) | strategies.sampled_from([0.05, 0.1, 0.9, 1.0, float("inf")]), max_size=40
    )
)
def test_values_are_observed_as_by_the_library(values: list[float]) -> None:
    own, library = CollectorRegistry(), CollectorRegistry()
    expected = prometheus_client.Histogram("a", "x", ["v"], registry=library, buckets=BOUNDS).labels("1")
    for value in values:
        expected.observe(value)
    histogram = Histogram(own, "a", "x", ["v"], BOUNDS)
    histogram.observe(np.array(values[:7]), "1")
    histogram.observe(np.array(values[7:]), "1")
    samples = [
        [
            (sample.name, sample.labels, pytest.approx(sample.value))
            for each in registry.collect()
            for sample in each.samples
        ]
        for registry in (own, library)
    ]
    assert samples[0] == samples[1] and len(samples[0]) == 6


def test_a_full_queue_is_observed_by_the_request() -> None:
    metrics = Metrics()
    for _ in range(WAITING + 1):
        metrics.http.request("/predict", "POST", "2xx", 0.01)
    metrics.http.request("/predict", "POST", "2xx", 0.01)
    assert metrics.registry.get_sample_value("http_request_duration_highr_seconds_count") == WAITING + 1
    assert f"http_request_duration_highr_seconds_count {WAITING + 2}.0" in metrics.exposition().decode()
