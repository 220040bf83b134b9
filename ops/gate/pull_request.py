"""`make gate`: the gate of a pull request, which compares the reports of the working tree with the merge base."""

from pathlib import Path
from typing import Any

from app.errors import Refused
from ops.gate.policy import decide_pull_request, markdown
from stages import git, tracked
from stages.decision import Decision
from stages.files import EVALUATION_FILE, METRICS_FILE
from stages.sections import PARAMS_FILE, GateParams, as_dict, changes


def merge_base(revision: str) -> str:
    """Return the commit at which this branch left `revision`; HEAD for GitHub's name of a new branch's base, zeros."""
    revision = "HEAD" if revision == "0" * 40 else revision
    done = git.run("merge-base", "HEAD", revision)
    if done.returncode != 0:
        shallow = git.git("rev-parse", "--is-shallow-repository").strip() == "true"
        reason = " ".join(done.stderr.split()) or ("the clone is shallow" if shallow else "they share no history")
        raise git.GitFailed(
            f"HEAD and {revision!r} have no common commit here ({reason}): "
            f"`git fetch {'--unshallow' if shallow else 'origin'}`, or name another: make gate BASE=<revision>."
        )
    return done.stdout.strip()


def read(path: Path, commit: str = "") -> dict[str, Any]:
    """Return the content of a file, now or at the commit; none where it is missing, which the gate refuses."""
    text = git.show(commit, path) if commit else path.read_text(encoding="utf-8") if path.exists() else None
    content = {} if text is None else tracked.parse(text, path, commit[:9])
    return content if isinstance(content, dict) else {}


def groups(content: object) -> dict[str, Any]:
    """Return the groups of numbers in a report; none of what is laid out otherwise, which the gate refuses."""
    return {name: part for name, part in content.items() if isinstance(part, dict)} if isinstance(content, dict) else {}


def metrics_diff(commit: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return reports/metrics.json now and at the commit."""
    return groups(read(METRICS_FILE)), groups(read(METRICS_FILE, commit))


def parameter_changes(commit: str, missing: str = "none") -> list[tuple[str, Any, Any]]:
    """Return the keys of params.yaml that differ from the commit's, with both values."""
    return changes(read(PARAMS_FILE, commit), as_dict(), missing=missing)


def judge(revision: str, policy: GateParams) -> tuple[Decision, str]:
    """Return the decision on the working tree against the merge base, and the text of a pull request's comment."""
    tracked.check()
    commit = merge_base(revision)
    now, base = metrics_diff(commit)
    first = git.show(commit, METRICS_FILE) is None
    slices, base_slices = (groups(read(EVALUATION_FILE, side).get("slices")) for side in ("", commit))
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
    """Raise Refused, with the reasons, when the pull request is refused."""
    if not decision.accepted:
        raise Refused("the gate refuses: " + "; ".join(decision.reasons) + ".")
