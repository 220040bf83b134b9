"""The bundle as MLflow's `python_function`: requests in, predictions out; MLflow packages `app` with it.

The service loads the bundle itself and never runs this module. Its file names no class and holds no pickle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from app.interface import Request
from app.model import bundles

VERSION_FILE = "registered_model_meta"
"""MLflow's file beside a model that was loaded from the registry: its name and version, as YAML."""


class RequestModel:
    """A bundle that predicts a frame of requests."""

    def __init__(self, folder: Path) -> None:
        manifest = folder / "extra_files" / bundles.MANIFEST_FILE
        self.bundle = bundles.load(folder / bundles.MODEL_FILE, manifest)
        self.version = _version(folder / VERSION_FILE)

    def predict(self, frame: Any) -> Any:
        """Return probability, alert and version of each row; columns are the fields of a request, as in POST /predict.

        Raises Pydantic's ValidationError, which names row and field.
        """
        import pandas as pd  # pylint: disable=import-outside-toplevel # MLflow requires pandas, the service does not

        rows = frame.to_json(orient="records", date_format="iso", date_unit="us", double_precision=15)
        probabilities = self.bundle.probabilities(TypeAdapter(list[Request]).validate_json(rows))
        return pd.DataFrame(
            {
                "probability": probabilities,
                "alert": probabilities >= self.bundle.threshold,
                "model_version": self.version,
            },
            index=frame.index,
        )


def _version(file: Path) -> str | None:
    if not file.exists():
        return None
    fields = dict(line.split(": ", 1) for line in file.read_text(encoding="utf-8").splitlines())
    return fields["model_version"].strip("'\"")


def _load_pyfunc(path: str) -> RequestModel:
    """Load the model for MLflow; `path` is the file of LightGBM's model."""
    return RequestModel(Path(path).parent)
