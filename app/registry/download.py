"""Registered versions through MLflow's client: found by their alias, and downloaded to a folder that can be served."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

import mlflow
from mlflow import environment_variables
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from app.addresses import sqlite_file, without_password
from app.environment import EnvironmentInvalid
from app.errors import BundleInvalid, VersionMissing
from app.model import bundles
from app.model.evaluation import EVALUATION_FILE
from app.registry import failures
from app.registry.registered import VERSION_FILE, Registered
from app.settings import MLFLOW_CLIENT

FILES = ("MLmodel", bundles.MODEL_FILE, f"extra_files/{bundles.MANIFEST_FILE}")
"""The artifacts of a version: MLflow's description, which no code here follows, then what is exported."""
MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's error codes for a model or an alias that does not exist."""


def connect(uri: str) -> mlflow.MlflowClient:
    """Return a client with short timeouts; raise ModelUnavailable if its store cannot be opened."""
    check_variables()
    for variable, value in MLFLOW_CLIENT.items():
        os.environ.setdefault(variable, value)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)  # it logs a traceback for what it also raises
    with failures.explaining(uri):
        failures.check_store(uri)
        mlflow.set_tracking_uri(uri)
        return mlflow.MlflowClient(uri)


def check_variables() -> None:
    """Raise EnvironmentInvalid if a variable of MLflow has a value that MLflow cannot read."""
    for variable in vars(environment_variables).values():
        name = getattr(variable, "name", None)
        if isinstance(name, str) and name in os.environ:
            try:
                variable.get()
            except ValueError as err:
                raise EnvironmentInvalid(f"{err}. `unset {name}`, or correct it.") from err


def find(uri: str, name: str, alias: str) -> ModelVersion:
    """Return the version with this alias; raise VersionMissing if there is none, ModelUnavailable if MLflow fails."""
    missing_version = VersionMissing(
        f"no version of {name} is {alias} in {without_password(uri)}. "
        "`make repro` registers one, `make promote` makes it Production."
    )
    file = sqlite_file(uri)
    if file and not file.exists():  # MLflow would create it
        raise missing_version
    with failures.explaining(uri):
        try:
            return connect(uri).get_model_version_by_alias(name, alias)
        except MlflowException as err:
            if err.error_code not in MISSING:
                raise
            raise missing_version from err


def registered(version: ModelVersion, alias: str) -> Registered:
    """Return the registry's record of a version."""
    return Registered.of(version.name, version.version, alias, version.run_id, version.creation_timestamp, version.tags)


def export(version: ModelVersion, alias: str, uri: str, folder: Path) -> Registered:
    """Download a version to a folder as model.lgb, manifest.json, version.json and, if it has one, evaluation.json.

    `registered.load` verifies it. Raises ModelUnavailable if MLflow fails, BundleInvalid if a file is lost.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = f"models:/{version.name}/{version.version}"
    with tempfile.TemporaryDirectory() as scratch, failures.explaining(uri):
        lost = missing(version, uri)
        if lost:
            raise BundleInvalid(f"{lost}. Restore it, or register the model again: `make repro` at its commit.")
        downloaded = Path(mlflow.artifacts.download_artifacts(source, dst_path=scratch, tracking_uri=uri))
        for name in FILES[1:]:
            shutil.copyfile(downloaded / name, folder / Path(name).name)
    _export_evaluation(version, uri, folder)
    known = registered(version, alias)
    (folder / VERSION_FILE).write_text(known.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return known


def _export_evaluation(version: ModelVersion, uri: str, folder: Path) -> None:
    """Download the evaluation of a version, if its training run has one; print a failure and continue."""
    run = version.run_id or ""
    try:
        if EVALUATION_FILE in {file.path for file in mlflow.MlflowClient(uri).list_artifacts(run)}:
            mlflow.artifacts.download_artifacts(
                run_id=run, artifact_path=EVALUATION_FILE, dst_path=str(folder), tracking_uri=uri
            )
    except (MlflowException, OSError) as err:
        reason = failures.explained(uri, err)
        print(f"version {version.version} is used without its evaluation: {reason}", file=sys.stderr)


def absent(source: str, uri: str) -> str:
    """Return the first artifact that a model at a `models:/` address lacks; empty if it is complete."""
    stored = get_artifact_repository(source, tracking_uri=uri, registry_uri=uri)
    listed = {file.path for folder in (None, "extra_files") for file in stored.list_artifacts(folder)}
    return next((name for name in FILES if name not in listed), "")


def missing(version: ModelVersion, uri: str) -> str:
    """Return which artifact of a version MLflow has lost, and where it should be; empty if none."""
    name = absent(f"models:/{version.name}/{version.version}", uri)
    if not name:
        return ""
    place = mlflow.MlflowClient(uri).get_model_version_download_uri(version.name, version.version)
    return f"version {version.version} of {version.name}: its artifact {name} is missing in {place}"
