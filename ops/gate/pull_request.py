"""`make gate`: the gate of a pull request, which compares the reports of the working tree with the merge base."""

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any

import yaml

from app.errors import OnTimeError
from ops.gate.policy import decide_pull_request, markdown
from stages.decision import Decision
from stages.files import EVALUATION_FILE, METRICS_FILE
from stages.git import GitFailed, git
from stages.git import run as run_git
from stages.sections import PARAMS_FILE, GateParams, as_dict, changes


class GateRefused(OnTimeError):
    """The pull request makes the model worse, or lacks the evidence that it does not."""


class BaseUnknown(OnTimeError):
    """What to compare with cannot be read."""


def merge_base(revision: str) -> str:
    """Return the commit at which this branch left `revision`; HEAD for GitHub's name of a new branch's base, zeros."""
    revision = "HEAD" if revision == "0" * 40 else revision
    done = run_git("merge-base", "HEAD", revision)
    if done.returncode != 0:
        raise BaseUnknown(
            f"HEAD and {revision!r} have no common commit here {done.stderr.strip()}. "
            "Fetch it (`git fetch --unshallow`), or name another: make gate BASE=<revision>."
        )
    return done.stdout.strip()


def at_base(commit: str, path: str) -> str | None:
    """Return a file as it is in a commit; None where the commit lacks it."""
    with suppress(GitFailed):
        return git("show", f"{commit}:{path}")
    return None


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


def parameter_changes(commit: str, missing: str = "none") -> list[tuple[str, Any, Any]]:
    """Return the keys of params.yaml that differ from the commit's, with both values."""
    return changes(yaml.safe_load(at_base(commit, str(PARAMS_FILE)) or ""), as_dict(), missing=missing)


def judge(revision: str, policy: GateParams) -> tuple[Decision, str]:
    """Return the decision on the working tree against the merge base, and the text of a pull request's comment."""
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
    changed = [f"`{key}`: {old} → {new}" for key, old, new in parameter_changes(commit) if key.startswith("gate.")]
    if changed:  # who loosens the gate has to be seen doing it
        lines += ["The policy changes: " + "; ".join(changed) + ".", ""]
    return decision, "\n".join([*lines, markdown(decision)])


def enforce(decision: Decision) -> None:
    """Raise GateRefused, with the reasons, when the pull request is refused."""
    if not decision.accepted:
        raise GateRefused("the gate refuses: " + "; ".join(decision.reasons) + ".")
