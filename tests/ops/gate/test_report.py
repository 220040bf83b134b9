"""The report of a pull request: what changed, in words that match the numbers, and nothing that did not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from ops.gate import comparison
from stages.base.paths import METRICS_FILE
from tests.conftest import ROOT
from tests.support.repositories.scratch import commit, git, read_params, write_params


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


def report() -> str:
    """Return the report, without the spaces that align tables."""
    return re.sub(" +", " ", comparison.render_report("main"))


def test_report_of_no_change(project: Path) -> None:
    """It has DVC's page of plots beside it."""
    comparison.write_report("main")
    assert (project / "summary.md").read_text() == (project / comparison.REPORT).read_text()
    assert (project / comparison.FOLDER / "plots/index.html").stat().st_size > 10_000
    text = report()
    assert "### Gate: passed" in text and "No parameter changes." in text
    assert text.count("| same |") == len(comparison.HIGHER_IS_BETTER)
    assert "The data change" not in text and "**FAIL**" not in text


def test_report_of_changes(project: Path) -> None:
    """Failed checks come before what a reader has to open."""
    metrics = json.loads((project / METRICS_FILE).read_text())
    metrics["test"]["roc_auc"] -= 0.02
    metrics["test"]["log_loss"] -= 0.001
    (project / METRICS_FILE).write_text(json.dumps(metrics))
    p = read_params(project)
    rounds, p["train"]["rounds"] = p["train"]["rounds"], 99
    p["gate"]["floors"]["ece"] = 0.04
    write_params(project, p)
    data = project / "data.dvc"
    data.write_text(data.read_text().replace("md5: c", "md5: d", 1))
    text = report()
    assert "### Gate: refused" in text and "`gate.floors.ece`: 0.03 → 0.04" in text
    assert text.index("Failed checks") < text.index("<details>")
    row = next(line for line in text.splitlines() if line.startswith("| roc_auc |"))
    assert "-0.0200 | – | worse |" in row and "-0.0010 | – | better |" in text
    assert f"| `train.rounds` | {rounds} | 99 |" in text and "The data changes: `c" in text


def test_report_without_a_base(project: Path) -> None:
    git(project, "rm", "-r", "--quiet", "--cached", "reports")
    git(project, "commit", "--quiet", "--amend", "--no-edit")
    git(project, "branch", "--force", "main")
    text = report()
    assert "A first run" in text and "| roc_auc | – | 0.7" in text and len(text.encode()) < 65_536


@pytest.mark.parametrize(
    ("better", "interval", "words"),
    [
        (0.01, (0.005, 0.02), "better"),
        (0.01, (-0.005, 0.02), "better, within noise"),
        (-0.01, (-0.02, -0.005), "worse"),
        (-0.01, None, "worse"),
        (0.0, (-0.01, 0.01), "same"),
        (float("nan"), None, ""),
    ],
)
def test_change_in_words(better: float, interval: tuple[float, float] | None, words: str) -> None:
    assert comparison.in_words(better, interval) == words


def test_power_follows_from_the_interval() -> None:
    """A loss of 2.8 standard errors is shown in 80 % of draws."""
    rng = np.random.default_rng(0)
    error = 0.002
    (shown,) = re.findall(r"loss of (.*) roc_auc", comparison.power({"roc_auc": (-1.96 * error, 1.96 * error)}))
    measured = -float(shown) + rng.normal(0, error, 100_000)
    assert np.mean(measured + 1.96 * error < 0) == pytest.approx(0.8, abs=0.01)
    assert comparison.power({"roc_auc": (0.0, 0.0)}) == ""
