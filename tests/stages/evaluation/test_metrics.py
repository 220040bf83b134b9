"""The metrics: those of scikit-learn on plain rows, and those of repeated days under weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from stages.evaluation.metrics import (
    HIGHER_IS_BETTER,
    MetricSettings,
    Scored,
    interval,
    measure,
    measure_weighted,
    resample_groups,
)

SETTINGS = MetricSettings(ece_bins=10, riskiest_share=0.1)


def scores(seed: int, rows: int = 3000, decimals: int = 2) -> Scored:
    """Return calibrated scores with many ties, on twenty days."""
    rng = np.random.default_rng(seed)
    probability = rng.beta(2, 5, rows).round(decimals)
    target = (rng.random(rows) < probability).astype(np.int8)
    return Scored(target, probability, np.sort(rng.integers(100, 120, rows)))


@given(seed=strategies.integers(0, 1000), decimals=strategies.integers(1, 6))
def test_metrics_are_those_of_scikit_learn_with_ties(seed: int, decimals: int) -> None:
    s = scores(seed, 400, decimals)
    found = measure(s, SETTINGS)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(s.target, s.probability), abs=1e-12)
    assert found["pr_auc"] == pytest.approx(average_precision_score(s.target, s.probability), abs=1e-12)
    assert found["log_loss"] == pytest.approx(log_loss(s.target, s.probability), abs=1e-12)
    assert found["brier"] == pytest.approx(brier_score_loss(s.target, s.probability), abs=1e-12)


def test_a_weighted_day_counts_like_its_rows_repeated() -> None:
    s = scores(1)
    counts = resample_groups(s.group, 3, seed=5)
    weighted = measure_weighted(s, counts, SETTINGS)
    days = np.unique(s.group)
    for i, row in enumerate(counts):
        rows = np.concatenate([np.flatnonzero(s.group == day) for day, times in zip(days, row) for _ in range(times)])
        repeated = Scored(s.target[rows], s.probability[rows], np.zeros(len(rows), dtype=np.int64))
        plain = measure(repeated, SETTINGS)
        for name in set(HIGHER_IS_BETTER) - {"top_precision"}:
            assert weighted[name][i] == pytest.approx(plain[name], abs=1e-12), name
        assert weighted["top_precision"][i] == pytest.approx(plain["top_precision"], abs=0.02)


def test_every_metric_of_the_list_is_measured() -> None:
    assert set(measure(scores(2), SETTINGS)) == set(HIGHER_IS_BETTER)


def test_ece_of_a_constant_is_its_distance_to_the_rate() -> None:
    s = scores(3)
    constant = Scored(s.target, np.full(len(s.target), 0.9), s.group)
    assert measure(constant, SETTINGS)["ece"] == pytest.approx(0.9 - s.target.mean())


def test_riskiest_tenth_of_a_perfect_order() -> None:
    target = np.r_[np.ones(200), np.zeros(800)].astype(np.int8)
    s = Scored(target, np.linspace(1, 0, 1000), np.zeros(1000, dtype=np.int64))
    assert measure(s, SETTINGS)["top_precision"] == 1.0 and measure(s, SETTINGS)["roc_auc"] == 1.0


def test_interval_holds_the_estimate_and_is_repeatable() -> None:
    s = scores(4)
    counts = resample_groups(s.group, 300, seed=9)
    low, high = interval(measure_weighted(s, counts, SETTINGS)["roc_auc"])
    assert low < measure(s, SETTINGS)["roc_auc"] < high
    assert (counts == resample_groups(s.group, 300, seed=9)).all()
