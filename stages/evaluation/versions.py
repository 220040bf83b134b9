"""The registered version of a bundle: its training run, its tags, and the evaluation kept with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from app.interface import NAME
from app.model import evaluation
from app.registry import download
from stages import interface
from stages.base import git, yaml_files
from stages.base.paths import BUNDLE_DIR, EVALUATION_FILE, FEATURES_DIR, METRICS_FILE
from stages.evaluation.floors import Decision
from stages.evaluation.metrics import HIGHER_IS_BETTER
from stages.evaluation.model_card import METRIC_NAMES
from stages.params import Params
from stages.problem_kit.params import as_dict, flatten
from stages.tracking import logged_model, mlflow_runs

LOCK_FILE = Path("dvc.lock")
TEST_ROWS = f"{FEATURES_DIR}/test"
PLOTS_DIR = EVALUATION_FILE.parent / "plots"


def training_run(client: MlflowClient, digest: str, p: Params) -> str:
    """Return the id of the run that trained the bundle; if there is none, create one, tagged as restored.

    There is none if DVC restored the bundle from its cache instead of training, or if its artifacts are gone.
    """
    tags = {mlflow_runs.DIGEST_TAG: digest, mlflow_runs.STAGE_TAG: "train"}
    for found in mlflow_runs.find_runs(client, tags):
        if not download.absent(found.data.tags[mlflow_runs.MODEL_URI_TAG], mlflow_runs.tracking_uri()):
            return str(found.info.run_id)
    with mlflow_runs.stage_run("train", p.train.model_dump(mode="json"), ["build/features"]) as log:
        mlflow.set_tag("restored", "true")
        logged_model.log_bundle(BUNDLE_DIR)
    return log.run_id


def find_version(client: MlflowClient, digest: str) -> ModelVersion | None:
    """Return the newest version of this bundle whose artifacts and metrics MLflow has, if there is one."""
    found = client.search_model_versions(f"name = '{NAME}' and tags.`{mlflow_runs.DIGEST_TAG}` = '{digest}'")
    for version in sorted(found, key=lambda one: int(one.version), reverse=True):
        if not (download.missing(version, mlflow_runs.tracking_uri()) or lost_run(client, version)):
            return version
    return None


def lost_run(client: MlflowClient, version: ModelVersion) -> str:
    """Return why the metrics that were kept with a version's training run cannot be read; empty if they can."""
    known = f"version {version.version} of {version.name}: its training run {version.run_id}"
    try:
        if METRICS_FILE.name in {file.path for file in client.list_artifacts(version.run_id or "")}:
            return ""
    except MlflowException as err:
        if err.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return f"{known} is deleted"
    return f"{known} has no {METRICS_FILE.name}"


def register_bundle(p: Params, digest: str, measured: dict[str, float], decision: Decision) -> None:
    """Register build/bundle, log its evaluation, and complete the pipeline's run; `measured` on the test rows."""
    client = mlflow_runs.connect()
    version = find_version(client, digest)
    log_evaluation(client, (version and version.run_id) or training_run(client, digest, p))
    with mlflow_runs.stage_run("register", inputs=[str(BUNDLE_DIR)]) as log:
        version = register_version(client, p, digest, decision, measured)
        mlflow.set_tags({"model.version": str(version.version), "floors": "; ".join(decision.reasons) or "passed"})
        _complete_pipeline_run(client, log.parent_id, measured, str(version.version))


def _complete_pipeline_run(client: MlflowClient, run_id: str, measured: dict[str, float], version: str) -> None:
    """Log all parameters and the test metrics to the pipeline run, even if its stages did not run here."""
    known = client.get_run(run_id).data.params
    for key, value in flatten(as_dict()).items():
        if key not in known:
            client.log_param(run_id, key, value)
    for metric, value in measured.items():
        client.log_metric(run_id, f"test.{metric}", value)
    client.set_tag(run_id, "model.version", version)


def register_version(
    client: MlflowClient, p: Params, digest: str, decision: Decision, measured: dict[str, float]
) -> ModelVersion:
    """Return the version of this bundle, created if necessary, with the alias `staging`."""
    version = find_version(client, digest)
    run_id = str(version.run_id) if version else training_run(client, digest, p)
    for file in filter(
        Path.exists, (METRICS_FILE, LOCK_FILE)
    ):  # they replace the files of an earlier evaluation, as the tags below
        client.log_artifact(run_id, str(file))
    source = client.get_run(run_id).data.tags[mlflow_runs.MODEL_URI_TAG]
    if version is None:
        version = mlflow.register_model(source, NAME, tags={mlflow_runs.DIGEST_TAG: digest})
        client.update_registered_model(NAME, mlflow_runs.ABOUT)
    test_rows = mlflow_runs.dataset(TEST_ROWS)
    mlflow.log_metrics(measured, run_id=run_id, model_id=source.removeprefix("models:/"), dataset=test_rows)
    digests = mlflow_runs.dvc_digests()
    tags = {"git.commit": git.commit(), "floors": "passed" if decision.accepted else "failed"}
    tags |= {f"dvc.md5.{path}": digests[path] for path in ("data", str(BUNDLE_DIR)) if path in digests}
    for key, value in tags.items():
        client.set_model_version_tag(NAME, version.version, key, value)
    first, last = p.test_period
    headline = ", ".join(f"{metric} {value:.4f}" for metric, value in measured.items())
    decisions = (version.description or "").partition("\n")[2]  # added by promotions and rollbacks
    lines = [f"{first} to {last}: {headline}. Bundle {digest[:12]}.", *filter(None, [decisions])]
    client.update_model_version(NAME, version.version, "\n".join(lines))
    client.set_registered_model_alias(NAME, "staging", version.version)
    return version


def collect_evaluation() -> dict[str, Any]:
    """Return what the service shows of the evaluation: its facts, two curves, the importance of features, and texts."""

    def plotted(name: str) -> pd.DataFrame:
        return pd.read_csv(PLOTS_DIR / f"{name}.csv", float_precision="round_trip")

    importance = plotted("importance")
    measured: dict[str, Any] = yaml_files.load(EVALUATION_FILE)
    return measured | {
        "curves": {name: plotted(name).to_dict("list") for name in ("roc", "calibration")},
        "importance": dict(zip(importance["feature"], importance["gain_share"].tolist(), strict=True)),
        "metrics": {
            name: {"title": title, "higher_is_better": HIGHER_IS_BETTER[name]} for name, title in METRIC_NAMES.items()
        },
        "texts": interface.CARD,
    }


def log_evaluation(client: MlflowClient, run_id: str) -> None:
    """Log the evaluation to the training run, in place of an earlier one; it is exported with the version."""
    client.log_dict(run_id, collect_evaluation(), evaluation.EVALUATION_FILE)
