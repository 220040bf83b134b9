"""Gate decisions with their evidence, and the floors for every model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stages.evaluation.metrics import HIGHER_IS_BETTER
from stages.problem_kit.params import GateParams


def number(value: object) -> float:
    """Return a value as a float; NaN if it is missing or not a number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


@dataclass(frozen=True)
class Bound:  # pylint: disable=too-many-instance-attributes # each is a column of the evidence
    """One comparison of a value with a bound; `now` and `base` are the inputs of a difference or ratio."""

    name: str
    value: float
    bound: float
    passed: bool
    sense: Literal["≥", "≤"] = "≥"
    now: float = math.nan
    base: float = math.nan
    part: str = ""
    """The slice; empty for all rows."""
    rule: str = ""
    """Distinguishes several checks of one metric, for example "regression"."""
    message: str = ""
    """An explanation, if the value is not enough."""

    @classmethod
    def at_least(
        cls, name: str, value: object, bound: float, now: object = None, base: object = None, **words: str
    ) -> Bound:
        """Check a lower bound; a missing or non-finite value fails."""
        measured = number(value)
        passed = math.isfinite(measured) and measured >= bound
        now = measured if now is None else number(now)
        return cls(name, measured, bound, passed, "≥", now, number(base), **words)

    @classmethod
    def at_most(
        cls, name: str, value: object, bound: float, now: object = None, base: object = None, **words: str
    ) -> Bound:
        """Check an upper bound; a missing or non-finite value fails."""
        measured = number(value)
        passed = math.isfinite(measured) and measured <= bound
        now = measured if now is None else number(now)
        return cls(name, measured, bound, passed, "≤", now, number(base), **words)

    @property
    def label(self) -> str:
        """Return slice, name and rule as one text."""
        rule = f"({self.rule})" if self.rule else ""
        return " ".join(filter(None, (self.part, self.name, rule)))

    @property
    def reason(self) -> str:
        """Return one line on why the check failed."""
        text = f"{self.label} is {self.value:.6g}, must be {self.sense} {self.bound:.6g}"
        return f"{text}: {self.message}" if self.message else text


@dataclass(frozen=True)
class Decision:
    """The verdict on a model, with all checks."""

    checks: tuple[Bound, ...]

    @property
    def accepted(self) -> bool:
        """Return whether there are checks and all of them passed."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Return one line per failed check."""
        if not self.checks:
            return ["nothing was checked"]
        return [check.reason for check in self.checks if not check.passed]

    def __add__(self, other: Decision) -> Decision:
        """Combine two decisions: both must accept."""
        return Decision(self.checks + other.checks)


def floor(metric: str, value: object, bound: float, base: object = None, part: str = "") -> Bound:
    """Check a metric against its floor, in the metric's direction."""
    check = Bound.at_least if HIGHER_IS_BETTER[metric] else Bound.at_most
    return check(metric, value, bound, value, base, part=part)


def decide_floors(measured: Mapping[str, Mapping[str, object]], policy: GateParams) -> Decision:
    """Apply the policy's floors to reports/metrics.json (keys `test`, `constant` and `logistic`).

    A ROC AUC above the leak ceiling also fails: it indicates target leakage.
    """
    test, constant, logistic = (measured.get(name, {}) for name in ("test", "constant", "logistic"))
    checks = [floor(name, test.get(name), bound) for name, bound in policy.floors.items()]
    checks.append(Bound.at_most("roc_auc", test.get("roc_auc"), policy.leak_roc_auc, rule="leak ceiling"))
    skill = 1 - number(test.get("brier")) / (number(constant.get("brier")) or math.nan)
    checks.append(Bound.at_least("brier skill against constant", skill, policy.brier_skill))
    gain = number(logistic.get("log_loss")) - number(test.get("log_loss"))
    checks.append(Bound.at_least("log loss gained on logistic regression", gain, policy.log_loss_gain))
    return Decision(tuple(checks))
