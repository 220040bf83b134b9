"""The self-test of the promotion gate: its resamples and intervals, and that a control can fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ops.gate.evidence import Resampled
from ops.studies import controls, gate
from stages import params
from tests.conftest import ROOT

POLICY = params.load(ROOT / "params.yaml").gate


def model(shift: float = 0.0) -> Resampled:
    """Return measurements that are worse by `shift` on all rows, and equal on one watched slice."""
    values = np.full(101, 0.5)
    whole = {str(name): values + (-shift if "auc" in name else shift) for name in POLICY.promotion.margins}
    part = {str(name): values for name in POLICY.promotion.slice_margins}
    return Resampled(whole, {POLICY.slices[0]: part})


def test_groups_are_drawn_whole() -> None:
    groups = np.array([3, 1, 1, 3, 2])
    rows, draw = gate.resample(groups, np.random.default_rng(0))
    assert len(np.unique(draw)) == 3
    for number in range(3):
        (group,) = np.unique(groups[rows[draw == number]])
        assert sorted(rows[draw == number]) == list(np.flatnonzero(groups == group))


def test_table_of_pairs() -> None:
    decisions = [gate.judge_pair(model(shift), model(), POLICY) for shift in (0.0, 0.0, 0.0, 0.2)]
    assert [decision.accepted for decision in decisions] == [True, True, True, False]
    row = gate.pairs_table(decisions).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == ["4", "1", "25% (4.6% to 69.9%)"]
    assert "roc_auc 1" in cells[4]


def test_smallest_loss_that_is_refused() -> None:
    assert "a loss of 0.0800 (" in gate.smallest(np.arange(101) / 1000)
    assert "no step" in gate.smallest(np.full(10, np.inf))


def scattered(loss: float, area: float, noise: float) -> Resampled:
    """Return a model that is good on the whole, with this loss and ROC AUC on every watched slice."""
    scatter = np.random.default_rng(1).normal(0, noise, 1001)
    scatter[0] = 0
    return Resampled(
        model().metrics, {name: {"log_loss": loss + scatter, "roc_auc": area + scatter} for name in POLICY.slices}
    )


@pytest.mark.parametrize(
    ("loss", "noise", "accepted"),
    [
        (0.0, 0.01, True),
        (0.02, 0.01, True),  # two standard errors: of 34 checks one shows as much by chance
        (0.05, 0.01, False),
        (0.015, 0.001, False),
        (0.004, 0.0001, True),  # certain, but within the margin
    ],
)
def test_slice_is_refused_beyond_chance(loss: float, noise: float, accepted: bool) -> None:
    known = scattered(0.5, 0.7, 0.0)
    assert gate.judge_pair(scattered(0.5 + loss, 0.7, noise), known, POLICY).accepted == accepted
    assert gate.judge_pair(scattered(0.5, 0.7 - loss - 0.005, noise), known, POLICY).accepted == accepted


@pytest.mark.parametrize(("noise", "accepted"), [(0.001, True), (0.01, False)])
def test_whole_is_refused_if_a_loss_is_possible(noise: float, accepted: bool) -> None:
    scatter = np.random.default_rng(1).normal(0, noise, 101)
    one = Resampled(model().metrics | {"roc_auc": 0.5 + scatter}, model().slices)
    assert gate.judge_pair(one, model(), POLICY).accepted == accepted


def test_slice_of_a_single_group_has_no_bound() -> None:
    name, known = POLICY.slices[0], scattered(0.5, 0.7, 0.0)
    worse = replace(
        known, slices=known.slices | {name: {"log_loss": np.full(1001, 0.52), "roc_auc": np.full(1001, 0.7)}}
    )
    single = gate.judge_pair(replace(worse, groups={name: 1}), known, POLICY)
    assert single.accepted and [c.part for c in single.checks if "single group" in c.rule] == [name, name]
    assert not gate.judge_pair(replace(worse, groups={name: 2}), known, POLICY).accepted


@pytest.mark.parametrize(
    ("control", "reasons"),
    [
        (controls.CONTROLS[0], []),
        (controls.CONTROLS[0], ["log_loss is 0.6, must be ≤ 0.54"]),
        (controls.CONTROLS[-1], ["roc_auc is 0.5"]),
    ],
    ids=["accepted", "refused by another check", "must pass"],
)
def test_control_with_another_outcome_stops(control: controls.Control, reasons: list[str]) -> None:
    with pytest.raises(controls.ControlFailed, match=control.name):
        controls.verify(control, list(control.checks), reasons)
    controls.verify(control, list(control.checks), [f"{check} is 0.5" for check in control.checks])
