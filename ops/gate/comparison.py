"""`on-time model report`: what a branch changes, as Markdown: metrics, parameters, data, plots and gate."""

import csv
import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ops.ci.github import append
from ops.gate import pull_request as gate
from ops.gate.base import Side, read
from ops.gate.policy import Nested, advantage, markdown, table
from stages import tracked
from stages.decision import Decision, number
from stages.files import PREDICTIONS_FILE
from stages.git import show
from stages.metrics import HIGHER_IS_BETTER
from stages.sections import GateParams, load_section

Table = dict[str, list[str]]

FOLDER = Path("build/report")
REPORT = FOLDER / "report.md"
NO_INTERVALS = (
    "No intervals: DVC's cache lacks the predictions that these reports measure; `make repro` at both makes them."
)
POINTS = 25
BARS = 10
COLOURS = {"base": ["#9a9a9a", "#c9c9c9"], "now": ["#0969da", "#54aeff"]}


def metrics(now: Nested, base: Nested, differences: Mapping[str, tuple[float, float]]) -> str:
    """Return the test metrics of both as a table; a change is called one where its interval excludes 0."""
    rows = []
    for name in HIGHER_IS_BETTER:
        pair = [number(side.get("test", {}).get(name)) for side in (base, now)]
        better = advantage(name, pair[1], pair[0])
        word = "better" if better > 0 else "worse" if better < 0 else "same" if better == 0 else ""
        low, high = differences.get(name, (np.nan, np.nan))
        word = f"{word}, within noise" if low <= 0 <= high and better else word
        noise = "–" if np.isnan(low) else f"{low:+.4f} to {high:+.4f}"
        cells = ["–" if np.isnan(value) else f"{value:.4f}" for value in pair]
        change = "–" if np.isnan(better) else f"{pair[1] - pair[0]:+.4f}"
        rows.append([name, *cells, change, noise, word])
    return table(["metric on the test rows", "base", "now", "change", "95 % interval", ""], rows)


def parameters(commit: str) -> str:
    """Return the parameters that differ from the commit's, the gate's apart, which its own part shows."""
    changed = gate.parameter_changes(commit, missing="–")
    rows = [[f"`{key}`", str(old), str(new)] for key, old, new in changed if not key.startswith("gate.")]
    return table(["parameter", "base", "now"], rows) if rows else "No parameter changes."


def data(commit: str) -> str:
    """Return a line on whether the raw data is another."""
    sides = (read(Path("data.dvc"), side) for side in (commit, ""))
    digests = [side.get("outs", [{}])[0].get("md5", "none")[:9] for side in sides]
    return f"The data changes: `{digests[0]}` → `{digests[1]}`." if digests[0] != digests[1] else ""


def columns(text: str | None) -> Table:
    """Return the columns of a CSV text by name; none of a file that is not there."""
    rows = list(csv.DictReader(io.StringIO(text or "")))
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def charts(commit: str) -> list[str]:
    """Return the plots of dvc.yaml that differ from the commit's, as Mermaid, which GitHub draws."""
    drawn = []
    plots = tracked.load(Path("dvc.yaml")).get("plots", [])
    for title, spec in [item for entry in plots for item in entry.items()]:
        for path, wanted in spec["y"].items():
            now = Path(path).read_text(encoding="utf-8") if Path(path).exists() else None
            base = show(commit, Path(path))
            if now is not None and now != base:
                y = wanted if isinstance(wanted, list) else [wanted]
                draw = bars if spec["template"] == "bar_horizontal" else lines
                drawn.append(draw(title, spec["x"], y, {"base": columns(base), "now": columns(now)}))
    return drawn


def lines(title: str, x: str, names: list[str], sides: dict[str, Table]) -> str:
    """Return curves over a numeric x, brought to common points, as a Mermaid chart."""
    present = {side: found for side, found in sides.items() if set(names) | {x} <= found.keys()}
    xs = {side: np.asarray(found[x], float) for side, found in present.items()}
    low, high = max(values.min() for values in xs.values()), min(values.max() for values in xs.values())
    grid = np.linspace(low, high, POINTS)
    series = []
    for column in names:
        for side, found in present.items():
            order = np.argsort(xs[side], kind="stable")
            curve = np.interp(grid, xs[side][order], np.asarray(found[column], float)[order])
            series.append((COLOURS[side][names.index(column)], curve))
    values = np.concatenate([curve for _, curve in series])
    axes = [f'x-axis "{x}" {low:g} --> {high:g}', f'y-axis "{", ".join(names)}" {values.min():g} --> {values.max():g}']
    return _mermaid(title, [colour for colour, _ in series], [*axes, *(f"line {_list(curve)}" for _, curve in series)])


def bars(title: str, x: str, labels: list[str], sides: dict[str, Table]) -> str:
    """Return the largest values now as bars, with the base's as a line, as a Mermaid chart."""
    label = labels[0]
    now = dict(zip(sides["now"][label], map(float, sides["now"][x]), strict=True))
    base = dict(zip(sides["base"].get(label, []), map(float, sides["base"].get(x, [])), strict=True))
    names = sorted(now, key=lambda name: -now[name])[:BARS]
    axes = [f"x-axis [{', '.join(names)}]", f'y-axis "{x}"', f"bar {_list([now[name] for name in names])}"]
    line = [f"line {_list([base.get(name, 0.0) for name in names])}"] if base else []
    return _mermaid(title, [COLOURS["now"][0], COLOURS["base"][0]], [*axes, *line], " horizontal")


def _list(values: Any) -> str:
    return "[" + ", ".join(f"{value:.5g}" for value in values) + "]"


def _mermaid(title: str, colours: list[str], body: list[str], kind: str = "") -> str:
    palette = ["---", "config:", "  themeVariables:", "    xyChart:", f'      plotColorPalette: "{", ".join(colours)}"']
    drawing = [*palette, "---", f"xychart-beta{kind}", f'  title "{title}: base grey, now blue"', *body]
    return "\n".join(["```mermaid", *drawing, "```"])


def folded(title: str, body: str) -> str:
    """Return a part that a reader opens."""
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def text(revision: str) -> str:
    """Return the whole report on the working tree against its merge base with a revision."""
    judged = gate.judge(revision, load_section(GateParams, "gate"))
    decision, comment, commit = judged.decision, judged.comment, judged.base.commit
    base = judged.base.side or Side()
    found = {}
    if judged.base.side and PREDICTIONS_FILE.exists():
        from ops.gate import rescore  # pylint: disable=import-outside-toplevel # MLflow and pandas take 2 s

        found = rescore.differences(judged.base, judged.now)
    every = markdown(decision)
    failed = Decision(tuple(check for check in decision.checks if not check.passed))
    drawn = charts(commit)
    parts = [
        comment.removesuffix(every).strip(),
        metrics(judged.now.metrics, base.metrics, found),
        "" if found or not judged.base.side else NO_INTERVALS,
        "**Failed checks**\n\n" + markdown(failed) if failed.checks else "",
        parameters(commit),
        data(commit),
        folded(f"{len(drawn)} plots change", "\n\n".join(drawn)) if drawn else "No plot changes.",
        folded(f"All {len(decision.checks)} checks of the gate", every),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def plots(revision: str, folder: Path) -> None:
    """Write DVC's own page of plots, index.html, with both sides of each, to a folder."""
    base = gate.merge_base(revision)[:9]  # it is the legend of the curves
    command = [sys.executable, "-m", "dvc", "plots", "diff", base, "--out", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def write(revision: str) -> None:
    """Write and print the report, with DVC's own page of plots beside it; the verdict of `make gate` is part of it."""
    report = text(revision)
    FOLDER.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(report, encoding="utf-8")
    plots(revision, FOLDER / "plots")
    print(report)
    append("GITHUB_STEP_SUMMARY", report)
