"""A real MLflow server, and versions in it."""

from __future__ import annotations

import shutil
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient

from app.interface import EXAMPLE, Request
from app.model import bundles
from app.model.bundles import Bundle
from app.registry import registered
from stages.tracking import logged_model, mlflow_runs
from tests.support.processes import running
from tests.support.servers.service import NAME


@dataclass
class Registry:
    """A real MLflow server on loopback, with versions whose answers to the example flight are known."""

    folder: Path
    uri: str
    versions: dict[str, float]
    """The answer of each good version."""
    database: str = "server.db"

    @property
    def client(self) -> MlflowClient:
        """A client of the server."""
        return MlflowClient(self.uri)

    def point(self, version: str) -> None:
        """Make a version Production."""
        self.client.set_registered_model_alias(NAME, "production", version)

    def publish(self, bundle_dir: Path, digest: str = "") -> str:
        """Register a bundle as the pipeline does, and return its version; with `digest`, lie about its bundle."""
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_experiment("flight-delay")
        (bundle_dir / bundles.REFERENCE_FILE).write_bytes(b"none")
        with mlflow.start_run() as run:
            logged_model.log_bundle(bundle_dir)
        tags = self.client.get_run(run.info.run_id).data.tags
        version = mlflow.register_model(tags[mlflow_runs.MODEL_URI_TAG], NAME)
        true = tags[mlflow_runs.DIGEST_TAG]
        self.client.set_model_version_tag(NAME, version.version, registered.DIGEST_TAG, digest or true)
        return str(version.version)

    def server(self, port: int) -> AbstractContextManager[object]:
        """Run the server until the block ends."""
        return mlflow_server(self.folder, port, f"sqlite:///{self.folder}/{self.database}")

    def twin(self, port: int) -> Registry:
        """Return a copy for another server, with the same versions and artifacts."""
        database = f"server-{port}.db"
        shutil.copy(self.folder / self.database, self.folder / database)
        return Registry(self.folder, f"http://127.0.0.1:{port}", self.versions, database)


def mlflow_server(folder: Path, port: int, store: str) -> AbstractContextManager[object]:
    """Run an MLflow server with artifacts in a folder, until the block ends."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(folder / "store")]
    return running(command, f"http://127.0.0.1:{port}/health", folder, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")


def risk(bundle: Bundle) -> float:
    """Return a bundle's answer to the example flight."""
    return float(bundle.probabilities([Request.model_validate(EXAMPLE)])[0])
