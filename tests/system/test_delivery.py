"""What a team does to a model, on a small part of the real data: real git, DVC, MLflow and gates, step by step.

Images are covered by test_release; the details of the pull request's gate and of check-lock by tests/ops.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, Clone, make_clone
from tests.support.repositories import scratch
from tests.support.servers import gh

POLICY = {
    "floors": {"roc_auc": 0.6, "pr_auc": 0.35, "log_loss": 0.58, "brier": 0.2, "ece": 0.2, "top_precision": 0.45},
    "leak_roc_auc": 0.9,
    "brier_skill": 0.01,
    "log_loss_gain": 0.0,
    "slices": ["origin=EWR", "origin=JFK", "origin=LGA"],
}
TRAIN = {"rounds": 80, "feature_fraction": 0.8, "min_data_per_group": 100, "cat_smooth": 20.0, "cat_l2": 10.0}
"""For so few rows; with these, a model is better than logistic regression."""
RATES = {"base": 0.06, "worse": 0.004, "better": 0.1}
"""Learning rates, with the same number of rounds."""


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A small project whose first model is on main, pushed to a shared repository with a DVC remote, and Production."""
    work = tmp_path_factory.mktemp("delivery")
    team = make_clone(work / "team")
    p = scratch.cut(team.path, every=3)
    p["gate"] |= POLICY
    p["gate"]["promotion"]["margins"]["roc_auc"] = 0.03  # one month of a third of the flights rules out no less
    p["train"] |= TRAIN | {"learning_rate": RATES["base"]}
    scratch.write_params(team.path, p)
    scratch.git(work, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    scratch.git(team.path, "remote", "add", "origin", str(work / "origin.git"))
    team.run("dvc", "remote", "add", "--default", "shared", str(work / "remote"))
    team.run("dvc", "add", "--quiet", "data")
    team.run("dvc", "repro")
    team.run("dvc", "push", "--quiet", "data")
    scratch.commit(team.path, "The first model")
    scratch.git(team.path, "push", "--quiet", "origin", "main")
    first = registry(team, "promote")
    assert "Version 1 of flight-delay is Production" in first
    return team


def on_time(team: Clone, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of on-time."""
    return team.run("python", "-m", "ops.cli", *arguments, check=check, **environment)


def registry(team: Clone, *arguments: str) -> str:
    """Run a command of the registry and return what it prints."""
    return on_time(team, "model", *arguments).stdout


def branch(team: Clone, name: str) -> None:
    """Start a branch from main, with the outputs that DVC's cache has of it."""
    scratch.git(team.path, "checkout", "--quiet", "--force", "-B", name, "main")
    team.run("dvc", "checkout", "--quiet", "--force")


def train_at(team: Clone, rate: str) -> None:
    """Change the learning rate and run the pipeline."""
    p = scratch.read_params(team.path)
    p["train"]["learning_rate"] = RATES[rate]
    scratch.write_params(team.path, p)
    team.run("dvc", "repro")


def test_a_change_of_a_text_runs_no_stage_and_passes(team: Clone, tmp_path: Path) -> None:
    branch(team, "docs")
    scratch.git(tmp_path, "clone", "--quiet", str(team.path), "ci")
    ci = Clone(tmp_path / "ci")
    shutil.copytree(team.path / ".dvc/cache", ci.path / ".dvc/cache")  # as the job's cache does
    ci.run("dvc", "pull", "--quiet", "data")
    ci.run("dvc", "checkout", "--quiet", "--allow-missing")
    (ci.path / "README.md").write_text("Another text.\n")
    assert "Running stage" not in ci.run("dvc", "repro", "evaluate").stdout
    assert "### Gate: passed" in on_time(ci, "model", "gate", "--base", "origin/main").stdout


def test_a_bad_row_stops_at_the_data_check(team: Clone) -> None:
    branch(team, "new-data")
    table = team.path / "data/flights.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    row = lines[100].split(",")
    row[lines[0].split(",").index("distance")] = "-5"
    lines[100] = ",".join(row)
    table.unlink()  # may be a link into DVC's cache
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    p = scratch.read_params(team.path)
    scratch.pin(team.path, p, "flights")
    scratch.write_params(team.path, p)
    team.run("dvc", "add", "--quiet", "data")
    done = team.run("dvc", "repro", "validate", check=False)
    assert done.returncode != 0 and "flights.route_length" in done.stderr and "Traceback" not in done.stderr


def test_a_worse_model_stops_the_pull_request(team: Clone) -> None:
    branch(team, "worse")
    train_at(team, "worse")
    done = on_time(team, "model", "gate", "--base", "main", check=False)
    assert done.returncode == 3 and "### Gate: refused" in done.stdout
    assert "| log_loss (regression) " in done.stdout and "**FAIL**" in done.stdout


@pytest.mark.nightly
def test_drift_proposes_a_new_model_and_main_stays(team: Clone, tmp_path: Path) -> None:
    branch(team, "main")
    shared = team.path.parent / "origin.git"
    before = scratch.git(shared, "rev-parse", "main")
    programs = gh.install(tmp_path / "bin", tmp_path / "github.json", ROOT)
    outside = {"PATH": f"{programs}:{os.environ['PATH']}", "PRETEND_GITHUB": str(tmp_path / "github.json")}
    outside |= {"GITHUB_REPOSITORY": "team/on-time"}
    on_time(team, "model", "retrain", "--now")
    on_time(team, "model", "report", "--base", "origin/main")
    proposed = on_time(team, "ci", "propose", "--reason", "CalibrationOff", **outside)
    assert "proposes the new model" in proposed.stdout
    (pull,) = json.loads((tmp_path / "github.json").read_text())["pulls"]
    for text in ("Why: CalibrationOff", "### Gate", "| log_loss "):
        assert text in pull["body"]
    assert "dvc.lock" in scratch.git(shared, "diff", "--name-only", "main", "retrain").split()
    assert scratch.git(shared, "rev-parse", "main") == before


def test_a_better_model_is_released_and_rolled_back(team: Clone) -> None:
    branch(team, "better")
    train_at(team, "better")
    assert "### Gate: passed" in on_time(team, "model", "gate", "--base", "main").stdout
    promoted = registry(team, "promote")
    found = re.search(r"Version (\d+) of flight-delay is Production, accepted against version 1", promoted)
    assert found, promoted
    back = registry(team, "rollback", "--reason", "too many false alarms")
    assert f"Version 1 of flight-delay is Production again, after {found[1]}: too many false alarms" in back
    assert "too many false alarms" in registry(team, "history")
