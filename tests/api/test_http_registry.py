"""The same over a real MLflow server, on SQLite and on PostgreSQL: register, promote, serve, nothing changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.registry.alias import find
from app.registry.version import load
from tests.conftest import Clone, free_port
from tests.support.registry import mlflow_server
from tests.support.service import Start


@pytest.mark.long
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_register_promote_and_serve_through_an_mlflow_server(
    database: str, pipeline: Clone, start: Start, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = f"sqlite:///{tmp_path}/server.db"
    if database == "postgresql":
        store = request.getfixturevalue("postgres").database()
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with mlflow_server(tmp_path, port, store):
        for module in (["stages.register"], ["ops.cli", "model", "promote"]):
            pipeline.run("python", "-m", *module, MLFLOW_TRACKING_URI=uri)
        version = start(mlflow_uri=uri, journal_url="none").version()
        command = ("python", "-m", "ops.cli", "model", "export", str(tmp_path / "copy"))
        pipeline.run(*command, MLFLOW_TRACKING_URI=uri)
        named = find(uri, "flight-delay", "production")
    assert version["model"] == {"name": "flight-delay", "version": "1"} and version["alias"] == "production"
    assert version["source"] == "registry"
    assert str(version["bundle_digest"]) in (pipeline.path / "build/receipt.json").read_text()
    served = load(tmp_path / "copy", "baked")
    assert served.evaluation and served.evaluation["test"]["roc_auc"] > 0.7
    assert named and named.production == served.production and named.production.action == "promote"
