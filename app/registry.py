"""From an alias in MLflow's registry to a model that can be served."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import mlflow
import yaml
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from app import model
from app.errors import BundleInvalid, ModelUnavailable
from app.served import ServedModel
from app.settings import MLFLOW_CLIENT, Settings


def load_alias(settings: Settings) -> ServedModel:
    """Load the version that the alias names; raise ModelUnavailable or BundleInvalid, with the reason."""
    name, alias, uri = settings.model_name, settings.model_alias, settings.tracking_uri
    for variable, value in MLFLOW_CLIENT.items():
        os.environ.setdefault(variable, value)
    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(uri)
    try:
        version = client.get_model_version_by_alias(name, alias)
        with tempfile.TemporaryDirectory() as folder:
            bundle = fetch(version, uri, Path(folder))
    except MlflowException as err:
        if err.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise ModelUnavailable(
                f"no version of {name} is {alias} in {uri}. "
                "`make repro` registers one, `make promote` makes it Production."
            ) from err
        raise ModelUnavailable(f"MLflow does not answer at {uri}: {str(err).splitlines()[0][:200]}") from err
    created = version.creation_timestamp / 1000
    return ServedModel(name, str(version.version), alias, version.run_id, bundle, "registry", created)


def fetch(version: ModelVersion, uri: str, folder: Path) -> model.Bundle:
    """Download a version into a folder and load it; raise BundleInvalid unless it is what was registered."""
    source = f"models:/{version.name}/{version.version}"
    bundle = load_artifacts(Path(mlflow.artifacts.download_artifacts(source, dst_path=str(folder), tracking_uri=uri)))
    expected = version.tags.get("bundle.digest")
    if bundle.digest != expected:
        raise BundleInvalid(
            f"version {version.version} of {version.name} is not what was registered: its manifest has SHA-256 "
            f"{bundle.digest[:12]}…, the registry says {str(expected)[:12]}…."
        )
    return bundle


def load_artifacts(folder: Path) -> model.Bundle:
    """Load the bundle in a downloaded MLflow model; refuse one that asks for other code than LightGBM's own loader."""
    try:
        flavors = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]
        native, loader = flavors["lightgbm"], flavors["python_function"]["loader_module"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as err:
        raise BundleInvalid(f"{folder} holds no MLflow model of the LightGBM flavour.") from err
    if loader != "mlflow.lightgbm" or native.get("data") != model.MODEL_FILE or native.get("code"):
        raise BundleInvalid(
            f"the model is loaded by {loader} from {native.get('data')}: only LightGBM's text format is served."
        )
    return model.load(folder / model.MODEL_FILE, folder / "extra_files" / model.MANIFEST_FILE)
