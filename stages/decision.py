"""Decisions with their evidence, and the floors that every model has to reach."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from stages.metrics import HIGHER_IS_BETTER
from stages.params import GateParams


@dataclass(frozen=True)
class Check:
    """One comparison of a value with a bound."""

    name: str
    value: float
    bound: float
    passed: bool

    @classmethod
    def at_least(cls, name: str, value: float | None, bound: float) -> Check:
        """Check that a value reaches a bound; a missing or non-finite value does not."""
        number = math.nan if value is None else float(value)
        return cls(name, number, bound, math.isfinite(number) and number >= bound)

    @classmethod
    def at_most(cls, name: str, value: float | None, bound: float) -> Check:
        """Check that a value stays within a bound; a missing or non-finite value does not."""
        number = math.nan if value is None else float(value)
        return cls(name, number, bound, math.isfinite(number) and number <= bound)


@dataclass(frozen=True)
class Decision:
    """Whether a model is accepted, and all that was compared."""

    checks: tuple[Check, ...]

    @property
    def accepted(self) -> bool:
        """Return whether there is evidence, and all of it is good."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Return one line for each check that failed."""
        if not self.checks:
            return ["nothing was checked"]
        return [f"{c.name} is {c.value:.6g}, bound {c.bound:.6g}" for c in self.checks if not c.passed]


def decide_floors(measured: Mapping[str, Mapping[str, float]], policy: GateParams) -> Decision:
    """Judge reports/metrics.json (`test`, `constant` and `logistic`) by the absolute floors of the policy.

    A ROC AUC above the leak ceiling fails as well: no honest model of this data gets there.
    """
    test, constant, logistic = (measured.get(name, {}) for name in ("test", "constant", "logistic"))
    checks = [
        (Check.at_least if HIGHER_IS_BETTER[name] else Check.at_most)(name, test.get(name), bound)
        for name, bound in policy.floors.items()
    ]
    checks.append(Check.at_most("roc_auc (leak ceiling)", test.get("roc_auc"), policy.leak_roc_auc))
    skill = 1 - test.get("brier", math.nan) / constant.get("brier", math.nan)
    checks.append(Check.at_least("brier skill against constant", skill, policy.brier_skill))
    gain = logistic.get("log_loss", math.nan) - test.get("log_loss", math.nan)
    checks.append(Check.at_least("log loss gained on logistic regression", gain, policy.log_loss_gain))
    return Decision(tuple(checks))
