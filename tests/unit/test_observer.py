"""Observations in a histogram, one by one or many at once, are those of prometheus_client."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from app.metrics import Observer


@given(values=st.lists(st.floats(-1, 2) | st.sampled_from([0.05, 0.1, 0.9, 1.0, float("inf")]), max_size=40))
def test_one_by_one_or_many_at_once_they_are_those_of_the_library(values: list[float]) -> None:
    plain, one, many = (Histogram(f"a{i}", "x", registry=CollectorRegistry(), buckets=(0.05, 0.1, 0.9)) for i in "123")
    for value in values:
        plain.observe(value)
        Observer(one).one(value)
    Observer(many).many(np.array(values, dtype=np.float64))
    expected, *found = (
        [(s.name[2:], s.labels, pytest.approx(s.value)) for m in each.collect() for s in m.samples]
        for each in (plain, one, many)
    )
    assert len(expected) == 6 and all(each == expected for each in found)
