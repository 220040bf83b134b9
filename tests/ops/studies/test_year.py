"""The year in fast motion: killed once, it resumes; what it cannot add is recorded; other folders stay as they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from ops.studies import year
from tests.conftest import Clone
from tests.support.processes import started, wait_for
from tests.support.repositories import growth, scratch
from tests.support.repositories.clone import ROOT, make_clone

TRAINING = {"rounds": 40, "learning_rate": 0.15, "num_leaves": 7, "feature_fraction": 1.0}
OPTIONS = ["--months", "3", "--files", "../files", "--folder", "../year"]
COMMAND = [sys.executable, "-m", "ops.cli", "model", "year", *OPTIONS]
GATE_MARGINS = {"roc_auc": 1.0, "log_loss": 1.0}


@pytest.fixture
def project(tmp_path: Path) -> Clone:
    """A project with a part of January to April, a policy that accepts nearly all, and a damaged file of May."""
    path = tmp_path / "project"
    clone = make_clone(path)
    may = growth.months(path, "flights", 5, 5)
    p = growth.start_with(path, 4, every=8)
    p["train"] |= TRAINING
    p["gate"]["slices"] = ["origin=EWR", "origin=JFK", "no=rows"]
    p["gate"]["pull_request"] |= {"max_regression": GATE_MARGINS, "slice_max_regression": {}, "max_alert_change": 1.0}
    p["gate"]["promotion"] |= {"margins": GATE_MARGINS, "slice_margins": GATE_MARGINS, "max_latency_ratio": 100}
    p["monitor"]["retrain"] |= {"min_new_outcomes": 100, "max_age_days": 10}
    scratch.write_params(path, p)
    clone.run("dvc", "add", "--quiet", "data")
    scratch.commit(path, "A part of January to April")
    (tmp_path / "files").mkdir()
    may.drop(columns="dest").to_csv(tmp_path / "files/flights-2013-05.csv", index=False)
    return clone


def ledger(folder: Path) -> list[dict[str, Any]]:
    """Return what is recorded of a year."""
    path = folder / year.LEDGER
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


@pytest.mark.long
def test_killed_year_resumes(project: Clone) -> None:
    folder = project.path.parent / "year"
    with started(COMMAND, project.path) as program:
        program.wait_until("the first month was recorded", lambda: ledger(folder))
        family = [psutil.Process(program.pid), *psutil.Process(program.pid).children(recursive=True)]
        for process in family:
            process.kill()
        wait_for("the end of what was killed", lambda: not any(one.is_running() for one in family[1:]))
    (killed,) = ledger(folder)
    assert killed["action"] == "retrain" and "outcome" not in killed

    done = project.run(*COMMAND)
    april, may = ledger(folder)
    assert april == killed | {"outcome": "promoted"}
    assert set(april["models"]) == {"first", "loop", "oracle"} and april["models"]["first"] == april["models"]["loop"]
    assert may["outcome"] == "data refused" and "it lacks dest" in may["reasons"][0] and "models" not in may
    assert "2013-04" in done.stdout and (folder / "year.md").read_text(encoding="utf-8") in done.stdout
    assert (folder / "year.png").read_bytes().startswith(b"\x89PNG")
    promoted = json.loads((folder / "production/manifest.json").read_text(encoding="utf-8"))["rows"]
    assert promoted["train"]["last"] < promoted["test"]["first"] == "2013-04-03"
    watched = scratch.read_params(folder / "clone")["gate"]["slices"]
    assert watched == ["origin=EWR", "origin=JFK"], "a slice that the test rows lack would refuse every model"
    assert project.git_status() == "" and not (project.path / "mlflow.db").exists()
    other = project.run(*COMMAND, "--months", "2", check=False)
    assert other.returncode == 1 and "was begun with" in other.stderr and len(ledger(folder)) == 2


def test_folder_with_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(year.YearFailed, match="is not empty"):
        year.live_year(ROOT, tmp_path, 3, None)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
