"""The same over a real MLflow server: register, promote and load by HTTP, with nothing else changed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.settings import Settings
from app.watch import first_model
from tests.conftest import Clone, free_port, running


def test_register_promote_and_load_through_an_mlflow_server(
    pipeline: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    store = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "store"),
    ]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        *store,
    ]
    with running(command, f"{uri}/health", tmp_path):
        for module in (["stages.register"], ["ops.registry", "promote"]):
            pipeline.run("python", "-m", *module, MLFLOW_TRACKING_URI=uri)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        served = first_model(Settings())
    assert served.version == "1" and served.alias == "production"
    assert served.bundle.digest in (pipeline.path / "build/receipt.json").read_text()
