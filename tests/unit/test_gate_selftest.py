"""The self-test of the promotion gate: its resamples, intervals and margins, and that a control can fail."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ops.gate.evidence import Resampled
from ops.gate.selftest import controls, equal, power
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
    rows, draw = equal.resample(groups, np.random.default_rng(0))
    assert len(np.unique(draw)) == 3
    for number in range(3):
        (group,) = np.unique(groups[rows[draw == number]])
        assert sorted(rows[draw == number]) == list(np.flatnonzero(groups == group))


def test_the_table_of_pairs_has_the_share_of_refusals_with_its_interval() -> None:
    decisions = [equal.judge(model(shift), model(), POLICY) for shift in (0.0, 0.0, 0.0, 0.2)]
    assert [decision.accepted for decision in decisions] == [True, True, True, False]
    row = equal.pairs_table({"made up": decisions}).splitlines()[-1]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:4] == ["made up", "4", "1", "25% (4.6% to 69.9%)"]
    assert "roc_auc 1" in cells[5]


def test_margins_are_those_that_95_percent_of_the_pairs_clear() -> None:
    needed = equal.needs([model(), model(0.1), model(0.1)], POLICY)
    assert sorted(needed["log_loss"].round(3)) == [-0.1, -0.1, 0, 0, 0.1, 0.1]
    single, joint = equal.margins({name: np.arange(1, 101) / 1000 for name in ("roc_auc", "log_loss")})
    assert single["roc_auc"] == pytest.approx(0.095, abs=1e-3) and joint == pytest.approx(single, rel=0.01)
    assert "| margin" in equal.margins_table({"1-2": {"roc_auc": np.arange(1, 101) / 1000}})


def test_the_smallest_loss_is_that_which_is_refused_80_percent_of_the_time() -> None:
    assert "a loss of 0.0800 (" in power.smallest(np.arange(101) / 1000)
    assert "no step" in power.smallest(np.full(10, np.inf))


@pytest.mark.parametrize("reasons", [[], ["log_loss is 0.6, must be ≤ 0.54"]])
def test_a_control_that_is_not_refused_by_its_check_stops_the_self_test(reasons: list[str]) -> None:
    control = controls.CONTROLS[0]
    with pytest.raises(controls.ControlFailed, match="labels shuffled"):
        controls.verify(control, list(control.checks), reasons)
    controls.verify(control, list(control.checks), [f"{check} is 0.5" for check in control.checks])


def test_a_control_that_has_to_pass_must_not_be_refused() -> None:
    control: Any = controls.CONTROLS[-1]
    controls.verify(control, [], [])
    with pytest.raises(controls.ControlFailed, match="no check"):
        controls.verify(control, [], ["roc_auc is 0.5"])
