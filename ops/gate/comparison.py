"""`on-time model report`: the changes of a branch as Markdown: metrics, parameters, data, plots and gate."""

import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ops.ci.github import append
from ops.gate import pull_request
from ops.gate.merge_base import Side, read_file
from ops.gate.policy import Nested, advantage, markdown, table
from stages.base.paths import PREDICTIONS_FILE
from stages.evaluation.floors import Decision, number
from stages.evaluation.metrics import HIGHER_IS_BETTER
from stages.problem_kit.params import GateParams, load_section

FOLDER = Path("build/report")
REPORT = FOLDER / "report.md"
NO_INTERVALS = (
    "No intervals: DVC's cache lacks the predictions that these reports measure; `make repro` at both makes them."
)


def metrics(now: Nested, base: Nested, differences: Mapping[str, tuple[float, float]]) -> str:
    """Return the test metrics of both as a table; a change is called one where its interval excludes 0."""
    rows = []
    for name in HIGHER_IS_BETTER:
        pair = [number(side.get("test", {}).get(name)) for side in (base, now)]
        better = advantage(name, pair[1], pair[0])
        cells = ["–" if math.isnan(value) else f"{value:.4f}" for value in pair]
        change = "–" if math.isnan(better) else f"{pair[1] - pair[0]:+.4f}"
        interval = differences.get(name)
        noise = f"{interval[0]:+.4f} to {interval[1]:+.4f}" if interval else "–"
        rows.append([name, *cells, change, noise, in_words(better, interval)])
    return table(["metric on the test rows", "base", "now", "change", "95 % interval", ""], rows)


def in_words(better: float, interval: tuple[float, float] | None) -> str:
    """Return an advantage as words; empty if it is not known."""
    if math.isnan(better):
        return ""
    if better == 0:
        return "same"
    word = "better" if better > 0 else "worse"
    return f"{word}, within noise" if interval and interval[0] <= 0 <= interval[1] else word


def power(differences: Mapping[str, tuple[float, float]]) -> str:
    """Return the loss of each metric that this comparison would have shown in 80 % of cases; empty if unknown.

    The standard error is the width of the 95 % interval / (2 x 1.96); a loss of 1.96 + 0.84 standard errors has an
    interval without 0 in 80 % of cases (normal approximation).
    """
    errors = {name: (high - low) / (2 * 1.96) for name, (low, high) in differences.items() if high > low}
    if not errors:
        return ""
    losses = ", ".join(f"{(1.96 + 0.84) * error:.4f} {name}" for name, error in errors.items())
    return f"In 80 % of cases, this comparison would have shown a loss of {losses}."


def parameters(commit: str) -> str:
    """Return the parameters that differ from the commit's, the gate's apart, which its own part shows."""
    changed = pull_request.parameter_changes(commit, missing="–")
    rows = [[f"`{key}`", str(old), str(new)] for key, old, new in changed if not key.startswith("gate.")]
    return table(["parameter", "base", "now"], rows) if rows else "No parameter changes."


def data(commit: str) -> str:
    """Return a line on whether the raw data is another."""
    sides = (read_file(Path("data.dvc"), side) for side in (commit, ""))
    digests = [side.get("outs", [{}])[0].get("md5", "none")[:9] for side in sides]
    return f"The data changes: `{digests[0]}` → `{digests[1]}`." if digests[0] != digests[1] else ""


def render_report(revision: str) -> str:
    """Return the whole report on the working tree against its merge base with a revision."""
    judged = pull_request.judge_commit(revision, load_section(GateParams, "gate"))
    decision, comment, commit = judged.decision, judged.comment, judged.base.commit
    base = judged.base.side or Side()
    intervals = {}
    if judged.base.side and PREDICTIONS_FILE.exists():
        from ops.gate import rescore  # pylint: disable=import-outside-toplevel # MLflow and pandas take 2 s

        intervals = rescore.differences(judged.base, judged.now)
    every = markdown(decision)
    failed = Decision(tuple(check for check in decision.checks if not check.passed))
    parts = [
        comment.removesuffix(every).strip(),
        metrics(judged.now.metrics, base.metrics, intervals),
        power(intervals),
        "" if intervals or not judged.base.side else NO_INTERVALS,
        "**Failed checks**\n\n" + markdown(failed) if failed.checks else "",
        parameters(commit),
        data(commit),
        "The artifact `report` draws both sides of each plot: plots/index.html.",
        f"<details><summary>All {len(decision.checks)} checks of the gate</summary>\n\n{every}\n\n</details>",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def write_report(revision: str) -> None:
    """Write and print the report, with DVC's own page of plots beside it; the verdict of `make gate` is part of it."""
    report = render_report(revision)
    FOLDER.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(report, encoding="utf-8")
    base = pull_request.merge_base(revision)[:9]  # it is the legend of the curves
    command = [sys.executable, "-m", "dvc", "plots", "diff", base, "--out", str(FOLDER / "plots")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    print(report)
    append("GITHUB_STEP_SUMMARY", report)
