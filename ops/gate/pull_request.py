"""The gates: pure decisions on a pull request and on a promotion, and the command that judges a pull request."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from app.errors import OnTimeError
from stages.decision import Check, Decision, decide_floors, floor, number
from stages.errors import run
from stages.files import EVALUATION_FILE, METRICS_FILE
from stages.metrics import HIGHER_IS_BETTER
from stages.sections import PARAMS_FILE, GateParams, as_dict, flatten, load_section

Nested = Mapping[str, Mapping[str, object]]


class GateRefused(OnTimeError):
    """The pull request makes the model worse, or lacks the evidence that it does not."""


class BaseUnknown(OnTimeError):
    """What to compare with cannot be read."""


@dataclass(frozen=True)
class Comparison:
    """One metric of both models on the same rows; `lower` bounds the challenger's advantage (good: positive)."""

    challenger: float
    champion: float
    lower: float


@dataclass(frozen=True)
class Evidence:
    """What a promotion is judged by; `challenger` is laid out as reports/metrics.json.

    Without a champion only `challenger` is filled; `unusable` says why a bundle was not loaded.
    """

    challenger: Nested
    unusable: str = ""
    has_champion: bool = False
    metrics: Mapping[str, Comparison] = field(default_factory=dict)
    slices: Mapping[str, Mapping[str, Comparison]] = field(default_factory=dict)
    latency: tuple[float, float] = (math.nan, math.nan)
    size: tuple[float, float] = (math.nan, math.nan)


def worsening(metric: str, now: object, base: object) -> float:
    """Return by how much a metric got worse, in its own unit; negative when it got better."""
    return (number(base) - number(now)) * (1 if HIGHER_IS_BETTER[metric] else -1)


def advantage(metric: str, challenger: float, champion: float) -> float:
    """Return by how much the challenger is better."""
    return -worsening(metric, challenger, champion)


def decide_pull_request(
    now: Nested, base: Nested | None, slices: Nested, base_slices: Nested, policy: GateParams
) -> Decision:
    """Judge reports/metrics.json and the slices of reports/evaluation.json against those of the merge base.

    With `base` None there is nothing to compare with: the floors alone decide.
    """
    rules = policy.pull_request
    decision = decide_floors(now, policy)
    checks: list[Check] = []
    if base is not None:
        for metric, most in rules.max_regression.items():
            pair = now.get("test", {}).get(metric), base.get("test", {}).get(metric)
            checks.append(Check.at_most(f"{metric} (regression)", worsening(metric, *pair), most, *map(number, pair)))
    for name in policy.slices:
        part, base_part = slices.get(name, {}), base_slices.get(name, {})
        for metric, bound in rules.slice_floors.items():
            checks.append(floor(f"{name} {metric}", metric, part.get(metric), bound, base_part.get(metric)))
        for metric, most in rules.slice_max_regression.items() if base is not None else ():
            pair = part.get(metric), base_part.get(metric)
            worse = worsening(metric, *pair)
            checks.append(Check.at_most(f"{name} {metric} (regression)", worse, most, *map(number, pair)))
    return decision + Decision(tuple(checks))


def decide_promotion(evidence: Evidence, policy: GateParams, allow_equal: bool = False) -> Decision:
    """Judge a challenger by the floors and, where there is a champion, by not being worse than it anywhere.

    A challenger that is better by no guarded metric is a tie, which is refused unless `allow_equal`.
    """
    if evidence.unusable:
        return Decision((Check.at_least(f"bundle that the service can load ({evidence.unusable})", 0, 1),))
    floors = decide_floors(evidence.challenger, policy)
    if not evidence.has_champion:
        return floors
    rules = policy.promotion
    checks = []
    for name, (ours, theirs), most in (
        ("latency", evidence.latency, rules.max_latency_ratio),
        ("size", evidence.size, rules.max_size_ratio),
    ):
        ratio = ours / theirs if theirs > 0 else math.nan
        checks.append(Check.at_most(f"{name} ratio", ratio, most, ours, theirs))
    pairs = {m: evidence.metrics[m] for m in rules.margins if m in evidence.metrics}
    better = sum(advantage(m, pair.challenger, pair.champion) > 0 for m, pair in pairs.items())
    checks.append(Check.at_least("metrics better than the champion's", better, 0 if allow_equal else 1))
    return floors + decide_not_worse(evidence.metrics, evidence.slices, policy) + Decision(tuple(checks))


def decide_not_worse(
    whole: Mapping[str, Comparison], parts: Mapping[str, Mapping[str, Comparison]], policy: GateParams
) -> Decision:
    """Judge whether a challenger is no worse than the champion by any guarded metric, nor on any watched slice."""
    rules, unknown = policy.promotion, Comparison(math.nan, math.nan, math.nan)
    guarded = {str(metric): (whole.get(metric, unknown), margin) for metric, margin in rules.margins.items()}
    for name in policy.slices:
        for metric, margin in rules.slice_margins.items():
            guarded[f"{name} {metric}"] = parts.get(name, {}).get(metric, unknown), margin
    return Decision(
        tuple(
            Check.at_least(f"{label} (not worse)", pair.lower, -margin, pair.challenger, pair.champion)
            for label, (pair, margin) in guarded.items()
        )
    )


def markdown(decision: Decision) -> str:
    """Return every check as a row of a Markdown table."""
    rows = ["| metric | base | now | change | bound | verdict |", "|---|--:|--:|--:|--:|---|"]
    for c in decision.checks:
        change = c.now - c.base
        numbers = [_cell(c.base), _cell(c.now), _cell(change, "+.4g")]
        rows.append(f"| {c.name} | {' | '.join(numbers)} | {_bound(c)} | {'pass' if c.passed else '**FAIL**'} |")
    return "\n".join(rows)


def _cell(value: float, form: str = ".5g") -> str:
    return "–" if math.isnan(value) else f"{value:{form}}"


def _bound(check: Check) -> str:
    """Return the bound, with what it bounds where that is not the metric itself."""
    own = f" ({_cell(check.value)})" if check.value != check.now and math.isfinite(check.value) else ""
    return f"{check.sense} {check.bound:g}{own}"


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)


def merge_base(revision: str) -> str:
    """Return the commit at which this branch left `revision`; HEAD for GitHub's name of a new branch's base, zeros."""
    revision = "HEAD" if revision == "0" * 40 else revision
    done = _git("merge-base", "HEAD", revision)
    if done.returncode != 0:
        raise BaseUnknown(
            f"HEAD and {revision!r} have no common commit here {done.stderr.strip()}. "
            "Fetch it (`git fetch --unshallow`), or name another: make gate BASE=<revision>."
        )
    return done.stdout.strip()


def at_base(commit: str, path: str) -> str | None:
    """Return a file as it is in a commit; None where the commit lacks it."""
    if _git("cat-file", "-e", f"{commit}:{path}").returncode != 0:
        return None
    return _git("show", f"{commit}:{path}").stdout


def metrics_diff(commit: str) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return reports/metrics.json now and at the commit, as `dvc metrics diff` sees them."""
    command = [sys.executable, "-m", "dvc", "metrics", "diff", "--all", "--json", commit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BaseUnknown(f"`dvc metrics diff` failed: {done.stderr.strip()[-300:]}")
    now: dict[str, dict[str, Any]] = {}
    base: dict[str, dict[str, Any]] = {}
    for name, pair in json.loads(done.stdout or "{}").get(str(METRICS_FILE), {}).items():
        group, _, metric = name.partition(".")
        now.setdefault(group, {})[metric] = pair.get("new")
        base.setdefault(group, {})[metric] = pair.get("old")
    return now, base


def read_slices(text: str | None) -> dict[str, Any]:
    """Return the slices of an evaluation; none from a text that is missing or damaged, which the gate refuses."""
    try:
        found = json.loads(text or "{}").get("slices", {})
    except (ValueError, AttributeError):
        return {}
    return {name: part for name, part in found.items() if isinstance(part, dict)} if isinstance(found, dict) else {}


def policy_changes(commit: str) -> list[str]:
    """Return the keys of the policy that this branch changes: who loosens the gate has to be seen doing it."""
    old = (yaml.safe_load(at_base(commit, str(PARAMS_FILE)) or "") or {}).get("gate", {})
    before, after = flatten(old), flatten(as_dict()["gate"])
    return [
        f"`gate.{key}`: {before.get(key, 'none')} → {after.get(key, 'none')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def judge(revision: str, policy: GateParams) -> tuple[Decision, str]:
    """Return the decision on the working tree against the merge base, and what a pull request's comment says of it."""
    commit = merge_base(revision)
    now, base = metrics_diff(commit)
    first = at_base(commit, str(METRICS_FILE)) is None
    slices = read_slices(EVALUATION_FILE.read_text(encoding="utf-8") if EVALUATION_FILE.exists() else None)
    base_slices = read_slices(at_base(commit, str(EVALUATION_FILE)))
    decision = decide_pull_request(now, None if first else base, slices, base_slices, policy)
    against = f"`{commit[:9]}`, the merge base with `{revision}`"
    lines = [f"### Gate: {'passed' if decision.accepted else 'refused'}", "", f"Compared with {against}.", ""]
    if first:
        lines[2] = f"A first run: {against}, has no `{METRICS_FILE}`. The floors alone decide."
    changes = policy_changes(commit)
    if changes:
        lines += ["The policy changes: " + "; ".join(changes) + ".", ""]
    return decision, "\n".join([*lines, markdown(decision)])


def main() -> None:
    """Print the table; exit 1 with the reasons when the pull request is refused."""
    parser = argparse.ArgumentParser(prog="python -m ops.gate.pull_request")
    parser.add_argument("--base", required=True, help="the branch or commit that the pull request is for")
    decision, comment = judge(parser.parse_args().base, load_section(GateParams, "gate"))
    print(comment)
    if not decision.accepted:
        raise GateRefused("the gate refuses: " + "; ".join(decision.reasons) + ".")


if __name__ == "__main__":
    run(main)
