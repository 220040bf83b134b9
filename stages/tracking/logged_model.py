"""The model that a run logs: LightGBM's flavor, and a `python_function` that takes requests instead of features."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType

import app
from app.interface import EXAMPLE, Request
from app.model import bundles, request_model
from stages.base.paths import sha256
from stages.tracking.mlflow_runs import DIGEST_TAG, MODEL_URI_TAG

APP = Path(app.__file__).parent
PACKAGED = ("__init__.py", "errors.py", "interface.py", "model", "problem", "problem_kit")
"""What `app.model.request_model` imports of `app`."""
PINNED = re.compile(r"^((?!mlflow)[\w.,[\]-]+==[^\\\n]+?) \\$", re.MULTILINE)
"""An entry of requirements.txt without its hashes; in place of mlflow-skinny, MLflow adds itself, with pandas."""


def log_bundle(directory: Path) -> None:
    """Log a bundle to the active run; tag the run with the bundle's digest."""
    requirements = (APP.parent / "requirements.txt").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        info = Model.log(
            None,
            sys.modules[__name__],
            name="model",
            bundle=directory,
            signature=_signature(),
            input_example=pd.DataFrame([EXAMPLE]),
            code_paths=[str(_packaged(Path(folder)))],
            extra_files=[str(directory / name) for name in (bundles.MANIFEST_FILE, bundles.REFERENCE_FILE)],
            pip_requirements=PINNED.findall(requirements),
        )
    mlflow.set_tags({DIGEST_TAG: sha256(directory / bundles.MANIFEST_FILE), MODEL_URI_TAG: info.model_uri})


def _packaged(folder: Path) -> Path:
    """Copy the code that the model needs; return its package."""
    package = folder / APP.name
    package.mkdir()
    for name in PACKAGED:
        if (APP / name).is_dir():
            shutil.copytree(APP / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(APP / name, package)
    return package


def save_model(path: str, mlflow_model: Model, bundle: Path, **options: Any) -> None:
    """Save LightGBM's flavor, and let `python_function` load `app.model.request_model` in its place."""
    import lightgbm  # pylint: disable=import-outside-toplevel # 1 s, for a model only

    booster = lightgbm.Booster(model_file=bundle / bundles.MODEL_FILE)
    mlflow.lightgbm.save_model(booster, path, mlflow_model=mlflow_model, **options)
    mlflow_model.flavors[mlflow.pyfunc.FLAVOR_NAME][mlflow.pyfunc.MAIN] = request_model.__name__
    mlflow_model.save(Path(path) / "MLmodel")


def _signature() -> ModelSignature:
    """Return the fields of a request: text as strings; the others with any type, as their validation is Pydantic's."""
    schema = Request.model_json_schema()
    required = schema.get("required", [])
    anything: Any = AnyType()  # type: ignore[no-untyped-call]
    fields: list[ColSpec | TensorSpec] = []
    for name, field in schema["properties"].items():
        is_text = field.get("type") == "string" and "format" not in field
        fields.append(ColSpec(DataType.string if is_text else anything, name, required=name in required))
    outputs: list[ColSpec | TensorSpec] = [
        ColSpec("double", "probability"),
        ColSpec("boolean", "alert"),
        ColSpec("string", "model_version", False),
    ]
    return ModelSignature(inputs=Schema(fields), outputs=Schema(outputs))
