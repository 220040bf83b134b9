"""Downloads from MLflow's registry to a folder that can be served; the service runs it as a process of its own."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import mlflow
import yaml
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from app import environment
from app.errors import BundleInvalid, ModelUnavailable, OnTimeError
from app.model import bundle as model
from app.registry import local_store
from app.registry.version import DIGEST_TAG, VERSION_FILE, Registered
from app.settings import MLFLOW_CLIENT


def connect(uri: str) -> mlflow.MlflowClient:
    """Return a client with short timeouts; raise ModelUnavailable if a local store is incomplete."""
    environment.check_mlflow()
    for variable, value in MLFLOW_CLIENT.items():
        os.environ.setdefault(variable, value)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    if moved := local_store.follow(uri):
        print(moved, file=sys.stderr)
    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient(uri)


def find(uri: str, name: str, alias: str) -> ModelVersion:
    """Return the version with this alias; raise ModelUnavailable if there is none or MLflow fails."""
    try:
        return connect(uri).get_model_version_by_alias(name, alias)
    except MlflowException as err:
        if err.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise ModelUnavailable(
                f"no version of {name} is {alias} in {without_password(uri)}. "
                "`make repro` registers one, `make promote` makes it Production."
            ) from err
        raise _failed(uri, err) from err


def registered(version: ModelVersion, alias: str) -> Registered:
    """Return the registry's record of a version."""
    return Registered(
        name=version.name,
        version=str(version.version),
        alias=alias,
        run_id=version.run_id,
        bundle_digest=version.tags.get(DIGEST_TAG, ""),
        created=version.creation_timestamp / 1000,
    )


def export(version: ModelVersion, alias: str, uri: str, folder: Path) -> Registered:
    """Download a version to a folder as model.lgb, manifest.json and version.json.

    `app.registry.version.load` verifies it. Raises ModelUnavailable if MLflow fails, BundleInvalid if it is no bundle.
    """
    source = f"models:/{version.name}/{version.version}"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            found = Path(mlflow.artifacts.download_artifacts(source, dst_path=scratch, tracking_uri=uri))
        except (MlflowException, OSError) as err:
            raise _failed(uri, err) from err
        _refuse_foreign(found)
        for name in (model.MODEL_FILE, f"extra_files/{model.MANIFEST_FILE}"):
            if not (found / name).is_file():
                raise BundleInvalid(f"version {version.version} of {version.name} has no {name}.")
            shutil.copyfile(found / name, folder / Path(name).name)
    known = registered(version, alias)
    (folder / VERSION_FILE).write_text(known.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return known


def _failed(uri: str, err: Exception) -> ModelUnavailable:
    reason = (str(err) or repr(err)).splitlines()[0][:200]
    return ModelUnavailable(without_password(f"the download from MLflow at {uri} failed: {reason}"))


def without_password(text: str) -> str:
    """Return the text without the credentials in its URLs."""
    return re.sub(r"://[^@/\s]+@", "://", text)


def _refuse_foreign(folder: Path) -> None:
    """Raise BundleInvalid if the model would be loaded by other code than LightGBM's loader."""
    try:
        flavors = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))["flavors"]
        native, loader = flavors["lightgbm"], flavors["python_function"]["loader_module"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as err:
        raise BundleInvalid(f"{folder} is not an MLflow model of the LightGBM flavour.") from err
    if loader != "mlflow.lightgbm" or native.get("data") != model.MODEL_FILE or native.get("code"):
        raise BundleInvalid(
            f"the model is loaded by {loader} from {native.get('data')}: only LightGBM's text format is served."
        )


def _execute(command: str, uri: str, name: str, *rest: str) -> Registered:
    if command == "find":
        return registered(find(uri, name, rest[0]), rest[0])
    version, alias, folder = rest
    try:
        found = connect(uri).get_model_version(name, version)
    except MlflowException as err:
        raise _failed(uri, err) from err
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
