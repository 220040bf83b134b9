"""Stage register: register the bundle as a model version, once, with the alias `staging`."""

from __future__ import annotations

import mlflow
from mlflow import MlflowClient

from app.interface import NAME
from app.model import bundles
from stages import params
from stages.base import yaml_files
from stages.base.errors import run
from stages.base.paths import BUNDLE_DIR, METRICS_FILE, RECEIPT_FILE, write_json
from stages.evaluation.floors import decide_floors
from stages.evaluation.versions import find_version, log_evaluation, register_version, training_run
from stages.problem_kit.params import as_dict, flatten
from stages.tracking import mlflow_runs


def main() -> None:
    """Read bundle and metrics, register the bundle, and write the receipt, which is the same on every machine."""
    p = params.load()
    digest = bundles.load(BUNDLE_DIR / bundles.MODEL_FILE, BUNDLE_DIR / bundles.MANIFEST_FILE).digest
    measured = yaml_files.load(METRICS_FILE)
    decision = decide_floors(measured, p.gate)
    client = mlflow_runs.connect()
    version = find_version(client, digest)
    log_evaluation(client, (version and version.run_id) or training_run(client, digest, p))
    with mlflow_runs.stage_run("register", inputs=[str(BUNDLE_DIR)]) as log:
        version = register_version(client, p, digest, decision, measured["test"])
        mlflow.set_tags({"model.version": str(version.version), "floors": "; ".join(decision.reasons) or "passed"})
        _complete_pipeline_run(client, log.parent_id, measured["test"], str(version.version))
    write_json(RECEIPT_FILE, {"model": NAME, "bundle_digest": digest, "floors": decision.accepted})


def _complete_pipeline_run(client: MlflowClient, run_id: str, measured: dict[str, float], version: str) -> None:
    """Log all parameters and the test metrics to the pipeline run, even if its stages did not run here."""
    known = client.get_run(run_id).data.params
    for key, value in flatten(as_dict()).items():
        if key not in known:
            client.log_param(run_id, key, value)
    for metric, value in measured.items():
        client.log_metric(run_id, f"test.{metric}", value)
    client.set_tag(run_id, "model.version", version)


if __name__ == "__main__":
    run(main)
