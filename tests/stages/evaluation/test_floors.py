"""The floors: a value that is too low, absent or not a number is refused by its name; all others are accepted."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from stages import params
from stages.evaluation.floors import Decision, decide_floors
from tests.conftest import ROOT

POLICY = params.load(ROOT / "params.yaml").gate
GOOD: dict[str, dict[str, float]] = {
    "test": {"roc_auc": 0.72, "pr_auc": 0.55, "log_loss": 0.52, "brier": 0.17, "ece": 0.02, "top_precision": 0.7},
    "constant": {"brier": 0.2},
    "logistic": {"log_loss": 0.535},
}


def changed(group: str, metric: str, value: Any) -> dict[str, dict[str, float]]:
    """Return the good metrics with one of them changed, or left out."""
    metrics = deepcopy(GOOD)
    metrics[group][metric] = value
    if value is None:
        del metrics[group][metric]
    return metrics


def test_accepts_a_model_that_reaches_every_floor() -> None:
    decision = decide_floors(GOOD, POLICY)
    assert decision.accepted and not decision.reasons


@pytest.mark.parametrize(
    ("group", "metric", "value", "reason"),
    [
        ("test", "roc_auc", 0.69, "roc_auc is 0.69"),
        ("test", "roc_auc", 0.78, "leak ceiling"),
        ("test", "pr_auc", None, "pr_auc is nan"),
        ("test", "log_loss", float("nan"), "log_loss is nan"),
        ("test", "ece", float("-inf"), "ece is -inf"),
        ("test", "ece", 0.031, "ece is 0.031"),
        ("test", "top_precision", 0.59, "top_precision is 0.59"),
        ("test", "brier", 0.1799, "brier skill"),
        ("constant", "brier", None, "brier skill"),
        ("logistic", "log_loss", 0.525, "logistic regression"),
        ("logistic", "log_loss", None, "logistic regression"),
    ],
)
def test_refuses_a_model_by_name_of_the_check(group: str, metric: str, value: Any, reason: str) -> None:
    decision = decide_floors(changed(group, metric, value), POLICY)
    assert not decision.accepted
    assert any(reason in line for line in decision.reasons)


def test_refuses_when_there_is_no_evidence() -> None:
    assert not decide_floors({}, POLICY).accepted
    assert not Decision(()).accepted and Decision(()).reasons
