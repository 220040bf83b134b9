"""The comparison of two models: the bootstrap of the whole and of the slices, and the latencies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from app.model import bundles
from ops.gate.evidence import compare_models, latencies, resampled
from stages import params
from stages.evaluation import metrics
from stages.evaluation.metrics import MetricSettings, Scored
from tests.conftest import ROOT

POLICY = params.load(ROOT / "params.yaml").gate.promotion


def test_same_predictions_have_no_advantage() -> None:
    rng = np.random.default_rng(0)
    scored = Scored(rng.integers(0, 2, 4000).astype(np.int8), rng.random(4000), np.repeat(np.arange(20), 200))
    slices = {"all": np.ones(4000, bool), "empty": np.zeros(4000, bool), "few": np.arange(4000) < 50}
    p = POLICY
    measured = resampled(scored, slices, p, MetricSettings(10, 0.1))
    whole, parts, _ = compare_models(measured, measured, p)
    assert {pair.bound for pair in whole.values()} == {0.0} and list(parts) == ["all"]


def test_bootstrap_of_a_slice_is_of_its_rows() -> None:
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(20), 200)
    ours, theirs = (Scored(rng.integers(0, 2, 4000).astype(np.int8), rng.random(4000), day) for _ in range(2))
    rows = rng.random(4000) < 0.5
    p = POLICY
    _, parts, replicates = compare_models(
        *(resampled(s, {"half": rows}, p, MetricSettings(10, 0.1)) for s in (ours, theirs)), p
    )
    drawn = metrics.resample_groups(day, p.bootstrap, p.seed)[3]
    weight = drawn[day[rows]]
    losses = [np.average(metrics.pointwise(s.where(rows))["log_loss"], weights=weight) for s in (ours, theirs)]
    areas = [roc_auc_score(s.target[rows], s.probability[rows], sample_weight=weight) for s in (ours, theirs)]
    assert replicates.slices["half"]["log_loss"][3] == pytest.approx(losses[1] - losses[0])
    assert replicates.slices["half"]["roc_auc"][3] == pytest.approx(areas[0] - areas[1])
    for metric, pair in parts["half"].items():
        gain = (pair.challenger - pair.champion) * (1 if metric == "roc_auc" else -1)
        spread = replicates.slices["half"][metric].std()
        assert pair.bound == pytest.approx(gain + 2.093 * spread, rel=0.01)  # 5 % in all, two checks, 20 days


def test_resample_of_one_outcome_does_not_count() -> None:
    rng = np.random.default_rng(0)
    day = np.repeat(np.arange(4), 100)
    target = np.where(day == 0, rng.integers(0, 2, 400), 0).astype(np.int8)  # only day 0 has both outcomes
    rows = np.ones(400, bool)
    measured = resampled(Scored(target, rng.random(400), day), {"all": rows}, POLICY, MetricSettings(10, 0.1))
    with_day_0 = metrics.resample_groups(day, POLICY.bootstrap, POLICY.seed)[:, 0] > 0
    for values in measured.slices["all"].values():
        assert len(values) == 1 + with_day_0.sum() and np.isfinite(values).all()
    one_class = resampled(
        Scored(np.zeros(400, np.int8), rng.random(400), day), {"all": rows}, POLICY, MetricSettings(10, 0.1)
    )
    assert not one_class.slices


def test_slower_model_is_measured_as_slower(bundle: bundles.Bundle) -> None:
    quick, slow = latencies([bundle, replace(bundle)], 30)
    assert slow < 3 * quick
    quick, slow = latencies([bundle, _Slow(**vars(bundle))], 30)
    assert slow > 3 * quick


class _Slow(bundles.Bundle):
    """A model that takes its time."""

    def probabilities(self, requests: Any) -> Any:
        for _ in range(9):
            super().probabilities(requests)
        return super().probabilities(requests)
