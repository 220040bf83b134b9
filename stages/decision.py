"""Decisions with their evidence, and the floors that every model has to reach."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stages.metrics import HIGHER_IS_BETTER
from stages.sections import GateParams


def number(value: object) -> float:
    """Return a measured value as a float; NaN for one that is missing or not a number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


@dataclass(frozen=True)
class Check:  # pylint: disable=too-many-instance-attributes # each is a column of the evidence
    """One comparison of a value with a bound; `now` and `base` are what a value with a base was computed from."""

    name: str
    value: float
    bound: float
    passed: bool
    sense: Literal["≥", "≤"] = "≥"
    now: float = math.nan
    base: float = math.nan
    part: str = ""
    """The slice that was measured; empty for all rows."""
    rule: str = ""
    """What the value must not be, where a metric is checked by several rules: "regression", "not worse"."""
    message: str = ""
    """What was found, where the value does not tell."""

    @classmethod
    def at_least(
        cls, name: str, value: object, bound: float, now: object = None, base: object = None, **words: str
    ) -> Check:
        """Check that a value reaches a bound; a missing or non-finite value does not."""
        found = number(value)
        passed = math.isfinite(found) and found >= bound
        return cls(name, found, bound, passed, "≥", found if now is None else number(now), number(base), **words)

    @classmethod
    def at_most(
        cls, name: str, value: object, bound: float, now: object = None, base: object = None, **words: str
    ) -> Check:
        """Check that a value stays within a bound; a missing or non-finite value does not."""
        found = number(value)
        passed = math.isfinite(found) and found <= bound
        return cls(name, found, bound, passed, "≤", found if now is None else number(now), number(base), **words)

    @property
    def label(self) -> str:
        """Return slice, name and rule as one text."""
        return " ".join(filter(None, (self.part, self.name, f"({self.rule})" if self.rule else "")))

    @property
    def reason(self) -> str:
        """Return why the check fails, in one line."""
        return f"{self.label} is {self.value:.6g}, must be {self.sense} {self.bound:.6g}" + (
            f": {self.message}" if self.message else ""
        )


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
        return [check.reason for check in self.checks if not check.passed]

    def __add__(self, other: Decision) -> Decision:
        """Return the decision that requires both."""
        return Decision(self.checks + other.checks)


def floor(metric: str, value: object, bound: float, base: object = None, part: str = "") -> Check:
    """Check a metric against its absolute bound, in the metric's own direction."""
    check = Check.at_least if HIGHER_IS_BETTER[metric] else Check.at_most
    return check(metric, value, bound, value, base, part=part)


def decide_floors(measured: Mapping[str, Mapping[str, object]], policy: GateParams) -> Decision:
    """Judge reports/metrics.json (`test`, `constant` and `logistic`) by the absolute floors of the policy.

    A ROC AUC above the leak ceiling fails as well: no honest model of this data gets there.
    """
    test, constant, logistic = (measured.get(name, {}) for name in ("test", "constant", "logistic"))
    checks = [floor(name, test.get(name), bound) for name, bound in policy.floors.items()]
    checks.append(Check.at_most("roc_auc", test.get("roc_auc"), policy.leak_roc_auc, rule="leak ceiling"))
    skill = 1 - number(test.get("brier")) / (number(constant.get("brier")) or math.nan)
    checks.append(Check.at_least("brier skill against constant", skill, policy.brier_skill))
    gain = number(logistic.get("log_loss")) - number(test.get("log_loss"))
    checks.append(Check.at_least("log loss gained on logistic regression", gain, policy.log_loss_gain))
    return Decision(tuple(checks))
