"""`make gate`: the gate of a pull request, which compares the reports of the working tree with the merge base."""

from dataclasses import dataclass
from typing import Any

from app.errors import Refused
from ops.gate.merge_base import Base, Side, load_side, read_file, side
from ops.gate.policy import decide_alerts, decide_pull_request, markdown, on_rows
from stages.base import git, yaml_files
from stages.base.paths import EVALUATION_FILE, METRICS_FILE
from stages.evaluation.floors import Bound, Decision, number
from stages.problem_kit.params import PARAMS_FILE, GateParams, as_dict, changes


def merge_base(revision: str) -> str:
    """Return the commit at which this branch left `revision`; HEAD for GitHub's name of a new branch's base, zeros."""
    revision = "HEAD" if revision == "0" * 40 else revision
    done = git.run("merge-base", "HEAD", revision)
    if done.returncode != 0:
        reason, fetch = "they share no history", "git fetch origin"
        if git.git("rev-parse", "--is-shallow-repository").strip() == "true":
            reason, fetch = "the clone is shallow", "git fetch --unshallow"
        reason = " ".join(done.stderr.split()) or reason
        raise git.GitFailed(
            f"HEAD and {revision!r} have no common commit here ({reason}): "
            f"`{fetch}`, or name another: make gate BASE=<revision>."
        )
    return done.stdout.strip()


def parameter_changes(commit: str, missing: str = "none") -> list[tuple[str, Any, Any]]:
    """Return the keys of params.yaml that differ from the commit's, with both values."""
    return changes(read_file(PARAMS_FILE, commit), as_dict(), missing=missing)


@dataclass(frozen=True)
class Judged:
    """The decision on a pull request, with both sides on the same rows and the text of its comment."""

    decision: Decision
    now: Side
    base: Base
    comment: str


def judge_commit(revision: str, policy: GateParams) -> Judged:
    """Judge the working tree against the merge base."""
    yaml_files.check()
    now = side()
    base = load_side(merge_base(revision), now)
    if base.moved_from:
        from ops.gate import rescore  # pylint: disable=import-outside-toplevel # MLflow and pandas take 2 s

        base = rescore.scored_again(base, now)
    before = base.side
    measured, parts = (before.metrics, before.slices) if before else (None, {})
    decision = decide_pull_request(now.metrics, measured, now.slices, parts, policy)
    if before:
        decision += decide_alerts(now.threshold, before.threshold, policy)
        known = Bound.at_least(f"digest of the test rows in {EVALUATION_FILE}", int("sha256" in now.rows), 1)
        decision += Decision((known,))
    verdict = "passed" if decision.accepted else "refused"
    lines = [f"### Gate: {verdict}", "", *_rows(revision, now, base), ""]
    changed = [f"`{key}`: {old} → {new}" for key, old, new in parameter_changes(base.commit) if key.startswith("gate.")]
    if changed:  # who loosens the gate has to be seen doing it
        lines += ["The policy changes: " + "; ".join(changed) + ".", ""]
    if before and now.threshold.get("value") != before.threshold.get("value"):
        lines += [f"The decision threshold changes: {_alerts(before)} → {_alerts(now)}.", ""]
    return Judged(decision, now, base, "\n".join([*lines, markdown(decision)]))


def _rows(revision: str, now: Side, base: Base) -> list[str]:
    """Return which rows both sides were measured on; first of all, whether these are others than the base's own."""
    against = f"`{base.commit[:9]}`, the merge base with `{revision}`"
    if base.side is None:
        return [f"A first run: {against}, has no `{METRICS_FILE}`. The floors alone decide."]
    rows = on_rows(now.rows) if now.rows else "unknown rows"
    lines = [f"Compared with {against}, on {rows}."]
    old = base.moved_from
    if old:
        moved = f"**The test rows have moved**, from {old['first']} to {old['last']}: "
        lines = [f"{moved}the base was scored again on the new ones.", "", *lines]
    return lines


def _alerts(known: Side) -> str:
    return f"{known.threshold.get('value')} ({number(known.threshold.get('alert_share')):.1%} alerts)"


def enforce(decision: Decision) -> None:
    """Raise Refused, with the reasons, when the pull request is refused."""
    if not decision.accepted:
        raise Refused("the gate refuses: " + "; ".join(decision.reasons) + ".")
