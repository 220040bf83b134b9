"""The report of a pull request: what changed, in words that match the numbers, and nothing that did not."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from ops.gate import comparison as report
from tests.conftest import ROOT
from tests.support.scratch import commit, git, read_params, write_params


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reports and what describes them, committed on main; a branch is checked out."""
    for name in ("dvc.yaml", "params.yaml", "data.dvc", "reports", ".dvc/config", ".gitignore"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    commit(tmp_path, "A model")
    git(tmp_path, "checkout", "--quiet", "-b", "change")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    return tmp_path


def set_metric(project: Path, name: str, by: float) -> None:
    """Move a test metric."""
    path = project / report.gate.METRICS_FILE
    content = json.loads(path.read_text())
    content["test"][name] = round(content["test"][name] + by, 6)
    path.write_text(json.dumps(content))


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed, without the spaces that align tables."""
    return re.sub(" +", " ", capsys.readouterr().out)


def test_nothing_changed_is_said_in_three_lines(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report.write("main")
    text = printed(capsys)
    assert "### Gate: passed" in text and "No parameter changes." in text and "No plot changes." in text
    assert text.count("| same |") == len(report.HIGHER_IS_BETTER)
    assert "The data change" not in text and "**FAIL**" not in text
    assert (project / "summary.md").read_text() == (project / report.REPORT).read_text()


def test_what_changed_is_shown_and_a_refusal_comes_first(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_metric(project, "roc_auc", -0.02)
    set_metric(project, "log_loss", -0.001)
    p = read_params(project)
    rounds, p["train"]["rounds"] = p["train"]["rounds"], 99
    p["gate"]["floors"]["ece"] = 0.04
    write_params(project, p)
    data = project / "data.dvc"
    data.write_text(data.read_text().replace("md5: c", "md5: d", 1))
    report.write("main")
    text = printed(capsys)
    assert "### Gate: refused" in text and "`gate.floors.ece`: 0.03 → 0.04" in text
    assert text.index("Failed checks") < text.index("<details>")
    rows = [line for line in text.splitlines() if line.startswith("| roc_auc |")]
    assert "-0.0200 | – | worse |" in rows[0]
    assert "-0.0010 | – | better |" in text
    assert f"| `train.rounds` | {rounds} | 99 |" in text
    assert "The data changes: `c" in text


def test_a_changed_plot_is_drawn_with_both_sides(project: Path) -> None:
    path = project / "reports/plots/roc.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:100] + lines[120:]) + "\n")
    importance = project / "reports/plots/importance.csv"
    importance.write_text(importance.read_text().replace("0.1", "0.2", 1))
    drawn = report.charts("main")
    assert len(drawn) == 2
    curve, bars = drawn[0], drawn[1]
    assert curve.startswith("```mermaid") and curve.count("\n  line [") + curve.count("\nline [") == 2
    assert "xychart-beta horizontal" in bars and bars.count("bar [") == 1
    values = [line for line in curve.splitlines() if line.startswith("line [")]
    assert all(len(json.loads(line.removeprefix("line "))) == report.POINTS for line in values)


def test_a_first_model_is_reported_without_a_base(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(project, "rm", "-r", "--quiet", "--cached", "reports")
    git(project, "commit", "--quiet", "--amend", "--no-edit")
    git(project, "branch", "--force", "main")
    report.write("main")
    text = printed(capsys)
    assert "A first run" in text and "| roc_auc | – | 0.7" in text
    assert os.path.getsize(project / report.REPORT) < 65_536
