"""The gate of a pull request compares on the same rows: a base of others is scored again, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.model import bundle as model
from ops.gate import evidence
from ops.gate.policy import on_rows
from stages import evaluate, metrics, params
from stages.files import BUNDLE_DIR, EVALUATION_FILE, METRICS_FILE, PREDICTIONS_FILE, write_json
from stages.frames import DAY, GROUP, KEY, TARGET
from stages.metrics import MetricSettings
from tests.conftest import ROOT, Clone
from tests.support import scratch
from tests.support.promotion import fill

pytestmark = pytest.mark.long
OTHER_ROWS = {"first": "2013-09-01", "last": "2013-10-31", "rows": 4000, "sha256": "1" * 64}


def measure(name: str, rows: dict[str, Any] | None = None) -> None:
    """Make a bundle of the folder the model of the working tree, with its reports on the test rows."""
    shutil.rmtree(BUNDLE_DIR, ignore_errors=True)
    shutil.copytree(Path("bundles") / name, BUNDLE_DIR)
    p, test = params.load(), evidence.TestRows.load()
    bundle = model.load(BUNDLE_DIR / model.MODEL_FILE, BUNDLE_DIR / model.MANIFEST_FILE)
    scored, settings = evidence.score(bundle, test, p), MetricSettings(p.evaluate.ece_bins, p.evaluate.riskiest_share)
    baselines = {"constant": {"brier": 0.25}, "logistic": {"log_loss": 0.69}}
    write_json(METRICS_FILE, {"test": metrics.measure(scored, settings), **baselines})
    facts = {
        "slices": evaluate.by_slice(scored, evaluate.slices(test.frame, test.lookups), settings),
        "rows": {"test": rows or test.described},
        "threshold": {"value": bundle.threshold, "alert_share": float((scored.probability >= bundle.threshold).mean())},
    }
    write_json(EVALUATION_FILE, facts)
    predictions = test.frame[[DAY, GROUP, TARGET, KEY]].assign(probability=scored.probability)
    predictions.to_parquet(PREDICTIONS_FILE, index=False)


@pytest.fixture
def project(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clone:
    """A branch of a project whose `main` has the model `better`, measured on other rows."""
    path = tmp_path / "project"
    shutil.copytree(folder, path, ignore=shutil.ignore_patterns(".git", "mlflow.db"))
    monkeypatch.chdir(path)
    p = scratch.read_params(path)
    p["gate"]["slices"], p["gate"]["pull_request"]["max_alert_change"] = ["origin=EWR"], 0.5
    scratch.write_params(path, p)
    Path(".gitignore").write_text("/build/\n/mlflow.db\n/mlruns/\n", encoding="utf-8")
    stage = {"cmd": "true", "outs": [str(BUNDLE_DIR), str(PREDICTIONS_FILE)]}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}), encoding="utf-8")
    scratch.make_repository(path)
    clone = Clone(path)
    clone.run("dvc", "init", "--quiet")
    measure("better", OTHER_ROWS)
    clone.run("dvc", "commit", "--force", "--quiet")
    scratch.commit(path, "A model")
    scratch.git(path, "switch", "--quiet", "--create", "change")
    return clone


def on_time(project: Clone, verb: str) -> tuple[int, str, str]:
    """Run a verb of `on-time model` against main; return exit code, output and error."""
    command = ["python", "-m", "ops.cli", "model", verb, "--base", "main"]
    done = project.run(*command, check=False, PYTHONPATH=str(ROOT), MLFLOW_TRACKING_URI="sqlite:///mlflow.db")
    return done.returncode, done.stdout, done.stderr


def test_a_base_on_other_rows_is_scored_again_and_the_report_says_so_first(project: Clone) -> None:
    measure("better")
    code, out, err = on_time(project, "gate")
    assert code == 0, err
    moved, compared = out.splitlines()[2:5:2]
    assert moved.startswith("**The test rows have moved**, from 2013-09-01 to 2013-10-31")
    assert f"on {on_rows(evidence.TestRows.load().described)}." in compared
    assert "| roc_auc (regression)" in out
    measure("weak")
    code, _, err = on_time(project, "gate")
    assert code == 3 and "; log_loss (regression)" in err


def test_a_base_whose_model_is_nowhere_is_refused_and_one_of_the_registry_is_taken(project: Clone) -> None:
    measure("better")
    shutil.rmtree(project.path / ".dvc/cache")
    code, _, err = on_time(project, "gate")
    assert code == 3 and "measured on other test rows (2013-09-01 to 2013-10-31)" in err
    assert "neither in DVC's cache or remote nor in the registry" in err and "make repro" in err
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
        fill(project.path, ["better"])
    code, out, err = on_time(project, "gate")
    assert code == 0 and "The test rows have moved" in out, err


def test_a_base_that_knows_the_new_test_rows_is_refused(project: Clone) -> None:
    manifest = Path("bundles/better") / model.MANIFEST_FILE
    facts = json.loads(manifest.read_bytes())
    facts["rows"]["train"]["last"] = "2013-11-01"
    write_json(manifest, facts)
    measure("better", OTHER_ROWS)
    project.run("dvc", "commit", "--force", "--quiet")
    scratch.commit(project.path, "Trained for a day more")
    scratch.git(project.path, "branch", "--force", "main")
    measure("weak")
    code, _, err = on_time(project, "gate")
    assert code == 3 and "was trained until 2013-11-01, and the new test rows begin on 2013-11-01" in err


def test_the_table_says_of_each_change_whether_it_is_more_than_noise(project: Clone) -> None:
    measure("better")
    project.run("dvc", "commit", "--force", "--quiet")
    scratch.commit(project.path, "On the present rows")
    scratch.git(project.path, "branch", "--force", "main")
    measure("weak")
    _, worse, _ = on_time(project, "report")
    row = next(line for line in worse.splitlines() if line.startswith("| log_loss "))
    assert "| worse" in row and "within noise" not in row and " to " in row
    assert "moved" not in worse
    project.run("python", "-m", "ops.cli", "ci", "trim-cache", "--base", "main", PYTHONPATH=str(ROOT))
    assert "No intervals" not in on_time(project, "report")[1]
    stale = PREDICTIONS_FILE.read_bytes()
    measure("good")
    PREDICTIONS_FILE.write_bytes(stale)  # of `weak`
    assert "No intervals" in on_time(project, "report")[1]
    measure("weak")
    shutil.rmtree(project.path / ".dvc/cache")
    assert "No intervals" in on_time(project, "report")[1]


def test_reports_that_do_not_name_their_rows_are_refused(project: Clone) -> None:
    measure("better")
    facts = json.loads(EVALUATION_FILE.read_bytes())
    for change in ({"rows": {}}, {"rows": {"test": {"first": "2013-11-01", "last": "2013-12-31", "rows": 9}}}):
        write_json(EVALUATION_FILE, facts | change)
        code, _, err = on_time(project, "gate")
        assert code == 3 and f"digest of the test rows in {EVALUATION_FILE} is 0" in err


def test_another_threshold_is_reported_and_refused_beyond_the_limit(project: Clone) -> None:
    measure("weak")
    project.run("dvc", "commit", "--force", "--quiet")
    scratch.commit(project.path, "On the present rows")
    scratch.git(project.path, "branch", "--force", "main")
    p = scratch.read_params(project.path)
    p["gate"]["pull_request"]["max_alert_change"] = 0.01
    scratch.write_params(project.path, p)
    measure("equal")
    code, out, err = on_time(project, "gate")
    assert code == 3 and "share of alerts (change)" in err
    assert "The decision threshold changes: 0.5 (" in out and "→ 0.6 (" in out
