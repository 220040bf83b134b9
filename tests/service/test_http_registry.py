"""The whole way over a real MLflow server on PostgreSQL: register, promote, serve, export."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.registry.registered import load
from tests.conftest import Clone, free_port
from tests.support.servers.postgres import Postgres
from tests.support.servers.registry import mlflow_server
from tests.support.servers.service import Start


@pytest.mark.long
def test_an_mlflow_server_is_used_as_a_file_is(
    pipeline: Clone, start: Start, tmp_path: Path, postgres: Postgres
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with mlflow_server(tmp_path, port, postgres.database()):
        for module in (["stages.register"], ["ops.cli", "model", "promote"]):
            pipeline.run("python", "-m", *module, MLFLOW_TRACKING_URI=uri)
        version = start(mlflow_uri=uri, journal_url="none").version()
        command = ("python", "-m", "ops.cli", "model", "export", str(tmp_path / "copy"))
        pipeline.run(*command, MLFLOW_TRACKING_URI=uri)
    assert version["model"] == {"name": "flight-delay", "version": "1"} and version["alias"] == "production"
    assert version["source"] == "registry"
    assert str(version["bundle_digest"]) in (pipeline.path / "build/receipt.json").read_text()
    served = load(tmp_path / "copy", "baked")
    assert served.evaluation and served.evaluation["test"]["roc_auc"] > 0.7
    assert served.production and served.production.action == "promote"
