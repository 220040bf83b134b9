"""The policy of the gates: pure decisions on a pull request and on a promotion, and the evidence that they need."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tabulate import tabulate

from stages.evaluation.floors import Bound, Decision, decide_floors, floor, number
from stages.evaluation.metrics import HIGHER_IS_BETTER
from stages.problem_kit.params import GateParams

Nested = Mapping[str, Mapping[str, object]]
NOT_WORSE = "not worse"


@dataclass(frozen=True)
class Comparison:
    """One metric of both models on the same rows, and a bound of the challenger's advantage (good: positive).

    Of all rows it is the lower bound: what is not shown to be kept is refused. Of a slice it is the upper one: what is
    shown to be lost is refused.
    """

    challenger: float
    champion: float
    bound: float


@dataclass(frozen=True)
class Evidence:
    """The evidence of a promotion; `challenger` is laid out as reports/metrics.json.

    Without a champion only `challenger` is filled; `unusable` is the reason why a bundle was not loaded.
    """

    challenger: Nested
    unusable: str = ""
    has_champion: bool = False
    metrics: Mapping[str, Comparison] = field(default_factory=dict)
    slices: Mapping[str, Mapping[str, Comparison]] = field(default_factory=dict)
    latency: tuple[float, float] = (math.nan, math.nan)
    size: tuple[float, float] = (math.nan, math.nan)
    rows: Mapping[str, object] = field(default_factory=dict)
    """Which rows both were measured on: first and last day, number, SHA-256."""
    conditions: tuple[Bound, ...] = ()
    """What must hold for the comparison to mean anything."""


def worsening(metric: str, now: object, base: object) -> float:
    """Return by how much a metric got worse, in its own unit; negative when it got better."""
    return (number(base) - number(now)) * (1 if HIGHER_IS_BETTER[metric] else -1)


def advantage(metric: str, challenger: float, champion: float) -> float:
    """Return by how much the challenger is better."""
    return -worsening(metric, challenger, champion)


def decide_pull_request(
    now: Nested, base: Nested | None, slices: Nested, base_slices: Nested, policy: GateParams
) -> Decision:
    """Compare reports/metrics.json and the slices of reports/evaluation.json with the merge base.

    With `base` None there is nothing to compare with: the floors alone decide.
    """
    rules = policy.pull_request
    decision = decide_floors(now, policy)
    checks: list[Bound] = []
    if base is not None:
        for metric, most in rules.max_regression.items():
            pair = now.get("test", {}).get(metric), base.get("test", {}).get(metric)
            checks.append(_regression(metric, pair, most))
    for name in policy.slices:
        part, base_part = slices.get(name, {}), base_slices.get(name, {})
        for metric, bound in rules.slice_floors.items():
            checks.append(floor(metric, part.get(metric), bound, base_part.get(metric), name))
        for metric, most in rules.slice_max_regression.items() if base is not None else ():
            checks.append(_regression(metric, (part.get(metric), base_part.get(metric)), most, name))
    return decision + Decision(tuple(checks))


def decide_alerts(now: Mapping[str, object], base: Mapping[str, object], policy: GateParams) -> Decision:
    """Judge the share of rows that the decision threshold makes an alert, on the same rows, by its change."""
    pair = number(now.get("alert_share")), number(base.get("alert_share"))
    most = policy.pull_request.max_alert_change
    return Decision((Bound.at_most("share of alerts", abs(pair[0] - pair[1]), most, *pair, rule="change"),))


def decide_promotion(evidence: Evidence, policy: GateParams, allow_equal: bool = False) -> Decision:
    """Decide on a challenger: it must reach the floors and, if there is a champion, not be worse than the champion.

    A challenger that improves no guarded metric is a tie, which is refused unless `allow_equal`.
    """
    if evidence.unusable:
        return Decision((Bound.at_least("bundle that the service can load", 0, 1, message=evidence.unusable),))
    floors = decide_floors(evidence.challenger, policy) + Decision(evidence.conditions)
    if not evidence.has_champion:
        return floors
    rules = policy.promotion
    checks = []
    for name, most in (("latency", rules.max_latency_ratio), ("size", rules.max_size_ratio)):
        new, old = getattr(evidence, name)
        checks.append(Bound.at_most(f"{name} ratio", new / old if old > 0 else math.nan, most, new, old))
    pairs = {m: evidence.metrics[m] for m in rules.margins if m in evidence.metrics}
    better = sum(advantage(m, pair.challenger, pair.champion) > 0 for m, pair in pairs.items())
    checks.append(Bound.at_least("metrics better than the champion's", better, 0 if allow_equal else 1))
    return floors + decide_not_worse(evidence.metrics, evidence.slices, policy) + Decision(tuple(checks))


def decide_not_worse(
    whole: Mapping[str, Comparison], parts: Mapping[str, Mapping[str, Comparison]], policy: GateParams
) -> Decision:
    """Decide whether a challenger is not worse than the champion by any guarded metric or on any watched slice."""
    rules, unknown = policy.promotion, Comparison(math.nan, math.nan, math.nan)
    checks = [_not_worse(metric, whole.get(metric, unknown), margin) for metric, margin in rules.margins.items()]
    for name in policy.slices:
        for metric, margin in rules.slice_margins.items():
            checks.append(_not_worse(metric, parts.get(name, {}).get(metric, unknown), margin, name))
    return Decision(tuple(checks))


def _regression(metric: str, pair: tuple[object, object], most: float, part: str = "") -> Bound:
    now, base = map(number, pair)
    return Bound.at_most(metric, worsening(metric, now, base), most, now, base, part=part, rule="regression")


def _not_worse(metric: str, pair: Comparison, margin: float, part: str = "") -> Bound:
    found = pair.bound, -margin, pair.challenger, pair.champion
    if part and pair.bound == math.inf:
        return Bound(metric, *found[:2], True, "≥", *found[2:], part=part, rule="no bound from a single group")
    return Bound.at_least(metric, *found, part=part, rule=NOT_WORSE)


def verdict(decision: Decision) -> str:
    """Return a decision as one word."""
    return "accepted" if decision.accepted else "refused"


def on_rows(rows: Mapping[str, object]) -> str:
    """Return which rows a comparison was made on, as text."""
    return f"{rows['rows']:,} rows, {rows['first']} to {rows['last']}, {str(rows.get('sha256', 'no digest'))[:12]}"


def markdown(decision: Decision) -> str:
    """Return every check as a row of a Markdown table."""
    rows = []
    for c in decision.checks:
        verdict = "pass" if c.passed else "**FAIL**"
        rows.append([c.label, _cell(c.base), _cell(c.now), _cell(c.now - c.base, "+.4g"), _bound(c), verdict])
    return table(["check", "base", "now", "change", "bound", "verdict"], rows)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table, its first and last column aligned on the left and the others on the right."""
    align = ["left", *["right"] * (len(head) - 2), "left"]
    return tabulate(rows, head, tablefmt="pipe", disable_numparse=True, colalign=align if rows else None)


def _cell(value: float, form: str = ".5g") -> str:
    return "–" if math.isnan(value) else f"{value:{form}}"


def _bound(check: Bound) -> str:
    """Return the bound, with the bounded quantity if it is not the metric itself."""
    own = f" ({_cell(check.value)})" if check.value != check.now and math.isfinite(check.value) else ""
    return f"{check.sense} {check.bound:g}{own}"
