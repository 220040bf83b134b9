"""`make gate` in a repository of its own: what it prints, and what it exits with."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Clone

METRICS, EVALUATION = "reports/metrics.json", "reports/evaluation.json"


def commit(repository: Clone, message: str) -> None:
    """Commit all that is there."""
    repository.run("git", "add", "--all")
    repository.run(
        "git",
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.com",
        "commit",
        "--quiet",
        "--allow-empty",
        "-m",
        message,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Clone:
    """A repository with a first commit without reports, tagged `empty`, and one with the reports on `main`."""
    repository = Clone(tmp_path)
    repository.run("git", "init", "--quiet", "--initial-branch=main")
    repository.run("dvc", "init", "--quiet")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "dvc.yaml").write_text(f"metrics: [{METRICS}]\n")
    commit(repository, "Nothing measured yet")
    repository.run("git", "tag", "empty")
    (tmp_path / "reports").mkdir()
    for name in (METRICS, EVALUATION):
        shutil.copy(ROOT / name, tmp_path / name)
    commit(repository, "A model")
    repository.run("git", "checkout", "--quiet", "-b", "change")
    return repository


def gate(repository: Clone, base: str) -> subprocess.CompletedProcess[str]:
    """Run the gate on the working tree."""
    return repository.run("python", "-m", "ops.cli", "model", "gate", "--base", base, check=False, PYTHONPATH=str(ROOT))


def test_a_first_run_is_called_one_and_an_equal_model_passes(repository: Clone) -> None:
    first = gate(repository, "empty")
    assert first.returncode == 0 and "A first run" in first.stdout and "(regression)" not in first.stdout
    equal = gate(repository, "main")
    assert equal.returncode == 0 and equal.stdout.startswith("### Gate: passed")
    assert "| roc_auc (regression) " in equal.stdout and "policy changes" not in equal.stdout


def test_a_new_branch_has_no_base_and_is_judged_by_the_floors(repository: Clone) -> None:
    assert gate(repository, "0" * 40).returncode == 0
    change(repository.path / METRICS, "test", "roc_auc", 0.6)
    done = gate(repository, "0" * 40)
    assert done.returncode == 3 and "roc_auc" in done.stderr


def change(path: Path, group: str, metric: str, value: Any) -> None:
    """Change a number of a report."""
    content = json.loads(path.read_bytes())
    content[group][metric] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("metric", "value", "reason"),
    [
        ("roc_auc", 0.6, "roc_auc (regression)"),
        ("roc_auc", float("nan"), "roc_auc is nan"),
        ("brier", None, "brier is nan"),
    ],
)
def test_a_worse_metric_a_nan_and_a_missing_one_end_with_3(
    repository: Clone, metric: str, value: Any, reason: str
) -> None:
    change(repository.path / METRICS, "test", metric, value)
    done = gate(repository, "main")
    assert done.returncode == 3 and reason in done.stderr and "**FAIL**" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", [METRICS, EVALUATION])
def test_a_missing_file_ends_with_3(repository: Clone, name: str) -> None:
    (repository.path / name).unlink()
    done = gate(repository, "main")
    assert done.returncode == 3 and "is nan" in done.stderr and "Traceback" not in done.stderr


def test_a_loosened_policy_is_shown_and_an_unknown_base_is_an_error(repository: Clone) -> None:
    path = repository.path / "params.yaml"
    path.write_text(path.read_text().replace("roc_auc: 0.70", "roc_auc: 0.60"))
    assert "`gate.floors.roc_auc`: 0.7 → 0.6" in gate(repository, "main").stdout
    unknown = gate(repository, "nowhere")
    assert unknown.returncode == 1 and "make gate BASE=" in unknown.stderr and "Traceback" not in unknown.stderr
