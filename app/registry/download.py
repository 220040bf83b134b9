"""Downloads from MLflow's registry to a folder that can be served; the service runs it as a process of its own."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

import mlflow
import yaml
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from app import environment
from app.errors import BundleInvalid, OnTimeError, VersionMissing
from app.model import bundle as model
from app.model.evaluation import EVALUATION_FILE, MOST_BYTES
from app.registry import failures, local_store
from app.registry.address import without_password
from app.registry.alias import MISSING
from app.registry.version import VERSION_FILE, Registered
from app.settings import MLFLOW_CLIENT

FILES = ("MLmodel", model.MODEL_FILE, f"extra_files/{model.MANIFEST_FILE}")
"""The artifacts of a version: MLflow's description, then what is exported."""


def connect(uri: str) -> mlflow.MlflowClient:
    """Return a client with short timeouts; raise ModelUnavailable if its store cannot be opened or is incomplete."""
    environment.check_mlflow()
    for variable, value in MLFLOW_CLIENT.items():
        os.environ.setdefault(variable, value)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)  # it logs a traceback for what it also raises
    with failures.explaining(uri):
        failures.check(uri)
        if moved := local_store.follow(uri):
            print(moved, file=sys.stderr)
        mlflow.set_tracking_uri(uri)
        return mlflow.MlflowClient(uri)


def find(uri: str, name: str, alias: str) -> ModelVersion:
    """Return the version with this alias; raise VersionMissing if there is none, ModelUnavailable if MLflow fails."""
    with failures.explaining(uri):
        try:
            return connect(uri).get_model_version_by_alias(name, alias)
        except MlflowException as err:
            if err.error_code not in MISSING:
                raise
            raise VersionMissing(
                f"no version of {name} is {alias} in {without_password(uri)}. "
                "`make repro` registers one, `make promote` makes it Production."
            ) from err


def registered(version: ModelVersion, alias: str) -> Registered:
    """Return the registry's record of a version."""
    return Registered.of(version.name, version.version, alias, version.run_id, version.creation_timestamp, version.tags)


def export(version: ModelVersion, alias: str, uri: str, folder: Path) -> Registered:
    """Download a version to a folder as model.lgb, manifest.json, version.json and, if it has one, evaluation.json.

    `app.registry.version.load` verifies it. Raises ModelUnavailable if MLflow fails, BundleInvalid if it is no bundle.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        with failures.explaining(uri):
            if lost := missing(version, uri):
                raise BundleInvalid(f"{lost}. Restore it, or register the model again: `make repro` at its commit.")
            source = f"models:/{version.name}/{version.version}"
            found = Path(mlflow.artifacts.download_artifacts(source, dst_path=scratch, tracking_uri=uri))
        _refuse_foreign(found, version)
        for name in FILES[1:]:
            shutil.copyfile(found / name, folder / Path(name).name)
    _export_evaluation(version, uri, folder)
    known = registered(version, alias)
    (folder / VERSION_FILE).write_text(known.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return known


def _export_evaluation(version: ModelVersion, uri: str, folder: Path) -> None:
    """Download the evaluation of a version, if its training run has one; print a failure and continue."""
    try:
        kept = {
            file.path: file.file_size or 0 for file in mlflow.MlflowClient(uri).list_artifacts(version.run_id or "")
        }
        if kept.get(EVALUATION_FILE, MOST_BYTES + 1) <= MOST_BYTES:
            mlflow.artifacts.download_artifacts(
                run_id=version.run_id, artifact_path=EVALUATION_FILE, dst_path=str(folder), tracking_uri=uri
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
    if name := absent(f"models:/{version.name}/{version.version}", uri):
        place = mlflow.MlflowClient(uri).get_model_version_download_uri(version.name, version.version)
        return f"version {version.version} of {version.name}: its artifact {name} is missing in {place}"
    return ""


def _refuse_foreign(folder: Path, version: ModelVersion) -> None:
    """Raise BundleInvalid if the model would be loaded by other code than LightGBM's loader."""
    try:
        flavors = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]
        native, loader = flavors["lightgbm"], flavors["python_function"]["loader_module"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as err:
        raise BundleInvalid(
            f"version {version.version} of {version.name} is not an MLflow model of the LightGBM flavour."
        ) from err
    if loader != "mlflow.lightgbm" or native.get("data") != model.MODEL_FILE or native.get("code"):
        raise BundleInvalid(
            f"the model is loaded by {loader} from {native.get('data')}: only LightGBM's text format is served."
        )


def _execute(command: str, uri: str, name: str, *rest: str) -> Registered:
    if command == "find":
        return registered(find(uri, name, rest[0]), rest[0])
    version, alias, folder = rest
    with failures.explaining(uri):
        found = connect(uri).get_model_version(name, version)
    return export(found, alias, uri, Path(folder))


def main() -> None:
    """Execute commands from stdin, one JSON array per line, and print one JSON object for each."""
    out, sys.stdout = sys.stdout, sys.stderr  # keeps other output apart from the replies
    os.nice(5)  # yield the CPU to requests
    for line in sys.stdin:
        try:
            reply = _execute(*json.loads(line)).model_dump_json()
        except OnTimeError as err:
            reply = json.dumps({"error": type(err).__name__, "reason": str(err)})
        print(reply, file=out, flush=True)


if __name__ == "__main__":
    main()
