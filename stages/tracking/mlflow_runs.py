"""MLflow tracking: one parent run per state of the pipeline's inputs, one child run per stage."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pyarrow.parquet as pq
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Run

from app.interface import DESCRIPTION, NAME
from app.registry import download, failures
from app.settings import DEFAULT_TRACKING_URI
from stages.base import git, yaml_files
from stages.tracking import local_store

EXPERIMENT = NAME
ABOUT = (
    f"{DESCRIPTION}\n\nA run for each state of the inputs, with a child run for each stage. "
    "The alias `staging` is the newest version, `production` is the served one."
)
PIPELINE_TAG = "pipeline.inputs"
STAGE_TAG = "pipeline.stage"
DIGEST_TAG = "bundle.digest"
MODEL_URI_TAG = "bundle.model_uri"
PARENT_TAG = "mlflow.parentRunId"
MOST_RUNS = 50_000  # MLflow's limit of a search; its default is 1,000
INPUT_FILES = ("dvc.yaml", "params.yaml", "data.dvc")


class _Dataset(MetaDataset):
    """An input versioned by DVC; its digest is DVC's MD5, its profile rows and columns of each folder of Parquet."""

    @property
    def profile(self) -> dict[str, dict[str, Any]]:
        """Return the number of rows and the types of the columns by folder."""
        folders: dict[str, dict[str, Any]] = {}
        for path in sorted(Path(self.name).rglob("*.parquet")):
            name = path.parent.relative_to(self.name).as_posix()
            if name not in folders:
                folders[name] = {"rows": 0, "columns": {field.name: str(field.type) for field in pq.read_schema(path)}}
            folders[name]["rows"] += pq.read_metadata(path).num_rows
        return folders

    def to_dict(self) -> dict[str, str]:
        """Return the fields that MLflow stores."""
        stored: dict[str, str] = super().to_dict()
        return stored | {"profile": json.dumps(self.profile)} if self.profile else stored


def dataset(path: str) -> MetaDataset:
    """Return an input as MLflow's dataset, with the digest in dvc.lock of the output that holds it."""
    digests = dvc_digests()
    digest = next((digests[part] for part in (path, *map(str, Path(path).parents)) if part in digests), "not-in-lock")
    source = CodeDatasetSource({"dvc.path": path, "dvc.md5": digest})
    return _Dataset(source, name=path, digest=digest.removesuffix(".dir"))


@dataclass(frozen=True)
class StageLog:
    """The active MLflow run of a stage."""

    run_id: str
    parent_id: str

    def metrics(self, **values: float) -> None:
        """Log metrics."""
        mlflow.log_metrics(values)

    def artifact(self, path: str | Path) -> None:
        """Log a file or a folder."""
        (mlflow.log_artifacts if Path(path).is_dir() else mlflow.log_artifact)(str(path))


def tracking_uri() -> str:
    """Return MLflow's address: MLFLOW_TRACKING_URI, by default a SQLite file in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI


def connect() -> mlflow.MlflowClient:
    """Return a client of MLflow; raise ModelUnavailable if it cannot be used, or its artifacts are elsewhere."""
    uri = tracking_uri()
    client = download.connect(uri)
    with failures.explaining(uri):
        moved = local_store.follow(uri)
        if moved:
            print(moved, file=sys.stderr)
        mlflow.set_experiment(EXPERIMENT)
    return client


def dvc_digests(commit: str = "") -> dict[str, str]:
    """Return the MD5 digests by path from data.dvc and dvc.lock, of the working tree or of a commit."""
    digests: dict[str, str] = {}
    for path in (Path("data.dvc"), Path("dvc.lock")):
        if commit or path.exists():
            content = (yaml_files.parse(git.show(commit, path) or "", path) if commit else yaml_files.load(path)) or {}
            for stage in [content, *content.get("stages", {}).values()]:
                digests |= {out["path"]: out["md5"] for out in stage.get("outs", []) if "md5" in out}
    return digests


def find_runs(client: mlflow.MlflowClient, tags: dict[str, str]) -> list[Run]:
    """Return the runs that have all these tags, newest first."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    terms = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    order = ["attributes.start_time DESC"]
    return list(client.search_runs([experiment.experiment_id], terms, max_results=MOST_RUNS, order_by=order))


def experiment_id() -> str:
    """Return the id of the experiment that holds all runs."""
    experiment = mlflow.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return str(experiment.experiment_id)


def pipeline_run(client: mlflow.MlflowClient) -> str:
    """Return the parent run of the current commit and pipeline inputs; create it if necessary."""
    commit = git.commit()
    content = [commit.encode()] + [Path(name).read_bytes() for name in INPUT_FILES if Path(name).exists()]
    inputs = hashlib.sha256(b"\0".join(content)).hexdigest()
    found = find_runs(client, {PIPELINE_TAG: inputs})
    if found:
        return str(found[0].info.run_id)
    tags = {PIPELINE_TAG: inputs, STAGE_TAG: "pipeline", "git.commit": commit}
    run = client.create_run(experiment_id(), tags=tags, run_name=f"pipeline {commit[:9]}")
    client.set_terminated(run.info.run_id)
    client.set_experiment_tag(experiment_id(), "mlflow.note.content", ABOUT)
    return str(run.info.run_id)


@contextmanager
def stage_run(stage: str, params: Mapping[str, Any] | None = None, inputs: Sequence[str] = ()) -> Iterator[StageLog]:
    """Log a stage as a child of the pipeline run: parameters, inputs with DVC's MD5, duration and status.

    MLflow is connected first, so that an unreachable server ends the stage before it computes anything.
    """
    started = time.monotonic()
    client = connect()
    parent_id = pipeline_run(client)
    tags = {PARENT_TAG: parent_id, STAGE_TAG: stage, "git.commit": git.commit()}
    status = "FAILED"
    try:
        with mlflow.start_run(run_name=stage, tags=tags) as run:
            if params is not None:
                mlflow.log_params(dict(params))
            for path in inputs:
                mlflow.log_input(dataset(path), context=stage)
            yield StageLog(run.info.run_id, parent_id)
            mlflow.log_metric("duration_seconds", time.monotonic() - started)
        status = "FINISHED"
    finally:
        client.set_terminated(parent_id, status)
