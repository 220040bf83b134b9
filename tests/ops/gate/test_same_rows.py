"""The gate of a pull request compares on the same rows: a base of others is scored again, or refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.errors import Refused
from app.model import bundles
from ops.gate import comparison, evidence, pull_request
from ops.gate.policy import on_rows
from ops.gate.pull_request import Judged
from stages import params
from stages.base.paths import BUNDLE_DIR, EVALUATION_FILE, METRICS_FILE, PREDICTIONS_FILE, write_json
from stages.evaluation import metrics, scores
from stages.evaluation.metrics import MetricSettings
from stages.features.feature_files import DAY, GROUP, KEY, TARGET
from tests.conftest import ROOT, Clone
from tests.support.promotion import fill
from tests.support.repositories import scratch

pytestmark = pytest.mark.long
OTHER_ROWS = {"first": "2013-09-01", "last": "2013-10-31", "rows": 4000, "sha256": "1" * 64}


def measure(name: str, rows: dict[str, Any] | None = None) -> None:
    """Make a bundle of the folder the model of the working tree, with its reports on the test rows."""
    shutil.rmtree(BUNDLE_DIR, ignore_errors=True)
    shutil.copytree(Path("bundles") / name, BUNDLE_DIR)
    p, test = params.load(), evidence.TestRows.load()
    bundle = bundles.load(BUNDLE_DIR / bundles.MODEL_FILE, BUNDLE_DIR / bundles.MANIFEST_FILE)
    scored, settings = evidence.score_rows(bundle, test, p), MetricSettings(
        p.evaluate.ece_bins, p.evaluate.riskiest_share
    )
    baselines = {"constant": {"brier": 0.25}, "logistic": {"log_loss": 0.69}}
    write_json(METRICS_FILE, {"test": metrics.measure(scored, settings), **baselines})
    facts = {
        "slices": scores.by_slice(scored, scores.slices(test.frame, test.lookups), settings),
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
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
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


def judge() -> Judged:
    """Judge the working tree against main."""
    return pull_request.judge_commit("main", params.load().gate)


def on_main(project: Clone, message: str) -> None:
    """Make the working tree the merge base."""
    project.run("dvc", "commit", "--force", "--quiet")
    scratch.commit(project.path, message)
    scratch.git(project.path, "branch", "--force", "main")


@pytest.mark.usefixtures("project")
def test_base_of_other_rows_is_scored_again() -> None:
    """And the report says so first."""
    measure("better")
    judged = judge()
    assert judged.decision.accepted
    moved, compared = judged.comment.splitlines()[2:5:2]
    assert moved.startswith("**The test rows have moved**, from 2013-09-01 to 2013-10-31")
    assert f"on {on_rows(evidence.TestRows.load().described)}." in compared
    assert "| roc_auc (regression)" in judged.comment
    measure("weak")
    assert "; log_loss (regression)" in "; ".join(judge().decision.reasons)


def test_base_model_is_taken_from_the_registry(project: Clone) -> None:
    """A model that is neither in DVC's cache nor in the registry is refused."""
    measure("better")
    shutil.rmtree(project.path / ".dvc/cache")
    why = "measured on other test rows .2013-09-01 to 2013-10-31.*neither in DVC's cache or remote nor in the registry"
    with pytest.raises(Refused, match=f"{why}.*make repro"):
        judge()
    fill(project.path, ["better"])
    judged = judge()
    assert judged.decision.accepted and "The test rows have moved" in judged.comment


def test_base_that_knows_the_new_rows_is_refused(project: Clone) -> None:
    manifest = Path("bundles/better") / bundles.MANIFEST_FILE
    facts = json.loads(manifest.read_bytes())
    facts["rows"]["train"]["last"] = "2013-11-01"
    write_json(manifest, facts)
    measure("better", OTHER_ROWS)
    on_main(project, "Trained for a day more")
    measure("weak")
    with pytest.raises(Refused, match="trained until 2013-11-01, and the new test rows begin on 2013-11-01"):
        judge()


def test_interval_of_each_change(project: Clone) -> None:
    """It is there only if both sides have the predictions that their reports measure."""
    measure("better")
    on_main(project, "On the present rows")
    measure("weak")
    worse = comparison.render_report("main")
    row = next(line for line in worse.splitlines() if line.startswith("| log_loss "))
    assert "| worse" in row and "within noise" not in row and " to " in row
    assert re.search(r"In 80 % of cases, this comparison would have shown a loss of .*0\.\d{4} log_loss", worse)
    assert "moved" not in worse
    project.run("python", "-m", "ops.cli", "ci", "trim-cache", "--base", "main", PYTHONPATH=str(ROOT))
    assert "No intervals" not in comparison.render_report("main")
    stale = PREDICTIONS_FILE.read_bytes()
    measure("good")
    PREDICTIONS_FILE.write_bytes(stale)  # of `weak`
    assert "No intervals" in comparison.render_report("main")
    measure("weak")
    shutil.rmtree(project.path / ".dvc/cache")
    assert "No intervals" in comparison.render_report("main")


@pytest.mark.usefixtures("project")
def test_reports_have_to_name_their_rows() -> None:
    measure("better")
    facts = json.loads(EVALUATION_FILE.read_bytes())
    for change in ({"rows": {}}, {"rows": {"test": {"first": "2013-11-01", "last": "2013-12-31", "rows": 9}}}):
        write_json(EVALUATION_FILE, facts | change)
        assert f"digest of the test rows in {EVALUATION_FILE} is 0" in "; ".join(judge().decision.reasons)


def test_other_threshold_is_refused_beyond_the_limit(project: Clone) -> None:
    measure("weak")
    on_main(project, "On the present rows")
    p = scratch.read_params(project.path)
    p["gate"]["pull_request"]["max_alert_change"] = 0.01
    scratch.write_params(project.path, p)
    measure("equal")
    judged = judge()
    assert "share of alerts (change)" in "; ".join(judged.decision.reasons)
    assert "The decision threshold changes: 0.5 (" in judged.comment and "→ 0.6 (" in judged.comment
