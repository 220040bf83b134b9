"""How the service starts when something is missing."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import httpx

from tests.conftest import ROOT, Clone, free_port, running


def test_a_port_in_use_is_named_with_the_way_out() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environment = {"ONTIME_PORT": str(port), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            [sys.executable, "-m", "app"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr and f"make serve PORT={port + 1}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_named() -> None:
    environment = {"ONTIME_PORT": "99999", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-m", "app"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1 and "PORT" in done.stderr and "Traceback" not in done.stderr


def test_without_a_model_the_service_lives_and_says_that_it_is_not_ready(tmp_path: Path) -> None:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    settings = {"ONTIME_PORT": str(port), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    with running([sys.executable, "-m", "app"], f"{base}/livez", ROOT, **settings):
        for method, path in (("GET", "/readyz"), ("GET", "/version"), ("POST", "/predict")):
            answer = httpx.request(method, base + path, json={"carrier": "UA"} if method == "POST" else None)
            assert answer.status_code in (422, 503), path
        ready = httpx.get(f"{base}/readyz")
    assert ready.status_code == 503 and ready.headers["Content-Type"] == "application/problem+json"
    assert "ModelUnavailable" in ready.json()["detail"] and str(tmp_path) not in ready.text


def test_serving_nothing_in_production_names_the_command(pipeline: Clone, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    done = pipeline.run("python", "-m", "ops.registry", "require", check=False, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 4
    assert uri in done.stderr and "make repro" in done.stderr and "Traceback" not in done.stderr
