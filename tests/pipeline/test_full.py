"""The whole pipeline on the real data, in a clone: what it leaves behind, and how good the model is."""

from __future__ import annotations

import json
from typing import Any

import mlflow
import pytest

from tests.conftest import Clone

pytestmark = pytest.mark.long

RECOMMENDED = {"roc_auc": 0.723, "pr_auc": 0.552, "log_loss": 0.5174, "top_precision": 0.70}
"""What the best of many variants reached on the test months in an earlier study of this data."""


@pytest.fixture(scope="module")
def client(pipeline: Clone) -> mlflow.MlflowClient:
    """A client of the MLflow that the pipeline wrote to."""
    return mlflow.MlflowClient(f"sqlite:///{pipeline.path}/mlflow.db")


@pytest.fixture(scope="module")
def evaluation(pipeline: Clone) -> dict[str, Any]:
    """The evaluation that the pipeline wrote."""
    content: dict[str, Any] = json.loads((pipeline.path / "reports/evaluation.json").read_text())
    return content


def test_committed_lock_and_reports_come_out(pipeline: Clone) -> None:
    assert pipeline.git_status() == ""
    assert "up to date" in pipeline.run("dvc", "status").stdout


def test_runs_are_tied_to_the_commit_and_to_the_lock(client: mlflow.MlflowClient, pipeline: Clone) -> None:
    commit = pipeline.run("git", "rev-parse", "HEAD").stdout.strip()
    version = client.get_model_version_by_alias("flight-delay", "staging")
    train = client.get_run(version.run_id or "")
    assert train.data.tags["git.commit"] == version.tags["git.commit"] == commit
    lock = (pipeline.path / "dvc.lock").read_text()
    assert version.tags["dvc.md5.build/bundle"] in lock and len(version.tags) == 5
    inputs = {item.dataset.name: item.dataset for item in train.inputs.dataset_inputs}
    assert inputs.keys() == {"build/features", "build/features/test"}  # of the training, and of the metrics
    assert all(f"{dataset.digest}.dir" in lock for dataset in inputs.values())
    profile = json.loads(inputs["build/features"].profile)
    assert profile["test"]["rows"] == 55_403 and "departure_minute" in profile["train"]["columns"]
    (found,) = client.search_logged_models(
        [train.info.experiment_id], "metrics.log_loss < 0.53 and metrics.roc_auc > 0.7"
    )
    assert [metric.dataset_name for metric in found.metrics if metric.key == "ece"] == ["build/features/test"]
    parent = client.get_run(train.data.tags["mlflow.parentRunId"])
    stages = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert sorted(run.data.tags["pipeline.stage"] for run in stages) == [
        "evaluate",
        "featurize",
        "register",
        "train",
        "validate",
    ]
    assert {run.info.status for run in stages} == {"FINISHED"} and parent.data.tags["pipeline.stage"] == "pipeline"
    receipt = json.loads((pipeline.path / "build/receipt.json").read_text())
    assert version.tags["bundle.digest"] == receipt["bundle_digest"] and receipt["floors"] is True


def test_registering_again_makes_no_second_version(pipeline: Clone, client: mlflow.MlflowClient) -> None:
    (pipeline.path / "build/receipt.json").unlink()
    assert "Running stage 'register'" in pipeline.run("dvc", "repro").stdout
    assert len(client.search_model_versions("name = 'flight-delay'")) == 1
    assert pipeline.git_status() == ""


def test_warm_cache_registers_a_restored_run(pipeline: Clone) -> None:
    database = pipeline.path / "other.db"
    uri = f"sqlite:///{database}"
    (pipeline.path / "build/receipt.json").unlink()
    pipeline.run("dvc", "repro", MLFLOW_TRACKING_URI=uri)
    other = mlflow.MlflowClient(uri)
    version = other.get_model_version_by_alias("flight-delay", "staging")
    run = other.get_run(version.run_id or "")
    database.unlink()
    assert run.data.tags["restored"] == "true" and run.data.tags["pipeline.stage"] == "train"


@pytest.mark.parametrize("name", RECOMMENDED)
def test_model_is_as_good_as_the_study_of_this_data(evaluation: dict[str, Any], name: str) -> None:
    low, high = evaluation["intervals"][name]
    assert low <= RECOMMENDED[name] <= high
