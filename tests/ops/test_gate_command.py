"""`make gate` in a repository of its own: what it prints, and what it exits with."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Clone
from tests.support import scratch

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


@pytest.mark.parametrize("name", [METRICS, EVALUATION, "params.yaml", "dvc.yaml"])
def test_a_conflict_marker_is_named_with_its_file_and_line(repository: Clone, name: str) -> None:
    path = repository.path / name
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:1], "<<<<<<< HEAD", *lines[1:], ">>>>>>> main"]))
    done = gate(repository, "main")
    assert done.returncode == 1 and done.stderr.startswith(f"error: {name}:2: conflict marker"), done.stderr
    assert done.stderr.count("\n") == 1 and "is nan" not in done.stderr


def test_a_base_with_a_conflict_marker_is_not_compared_with(repository: Clone) -> None:
    path = repository.path / METRICS
    text = path.read_text()
    path.write_text(text + ">>>>>>> main\n")
    commit(repository, "A conflict that was committed")
    path.write_text(text)
    done = gate(repository, "HEAD")
    assert done.returncode == 1 and f":{METRICS}:" in done.stderr and "make gate BASE=" in done.stderr


@pytest.mark.long
def test_the_way_to_a_common_commit_fits_the_repository(repository: Clone, tmp_path: Path) -> None:
    repository.run("git", "checkout", "--quiet", "--orphan", "unrelated")
    commit(repository, "Another beginning")
    done = gate(repository, "main")
    assert done.returncode == 1 and "share no history" in done.stderr and "`git fetch origin`" in done.stderr
    repository.run("git", "checkout", "--quiet", "change")
    commit(repository, "Later")
    shallow = Clone(tmp_path / "shallow")
    address = f"file://{repository.path}"
    repository.run("git", "clone", "--quiet", "--depth=1", "--no-single-branch", address, str(shallow.path))
    done = gate(shallow, "origin/main")
    assert done.returncode == 1 and "the clone is shallow" in done.stderr and "`git fetch --unshallow`" in done.stderr
    shallow.run("git", "fetch", "--quiet", "--unshallow")
    assert gate(shallow, "origin/main").returncode == 0


def test_a_project_below_the_top_of_its_repository_has_a_base(tmp_path: Path) -> None:
    below = Clone(tmp_path / "models" / "delay")
    (below.path / "reports").mkdir(parents=True)
    for name in (METRICS, EVALUATION, "params.yaml"):
        shutil.copy(ROOT / name, below.path / name)
    scratch.make_repository(tmp_path)
    change(below.path / METRICS, "test", "roc_auc", 0.71)
    done = gate(below, "main")
    assert done.returncode == 3 and "roc_auc (regression)" in done.stderr and "A first run" not in done.stdout


def test_a_repository_of_another_owner_is_one_line(repository: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    done = gate(repository, "main")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "--add safe.directory" in done.stderr
