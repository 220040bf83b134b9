"""How the service starts when something is missing."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import httpx

from app.interface import EXAMPLE
from tests.conftest import ROOT
from tests.support.processes import wait_for
from tests.support.service import Start


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
    assert done.returncode == 2 and "ONTIME_PORT" in done.stderr and "Traceback" not in done.stderr


def test_without_a_model_the_service_lives_and_says_that_it_is_not_ready(tmp_path: Path, start: Start) -> None:
    base = start(ready="livez", mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db").base
    for method, path in (("GET", "/readyz"), ("GET", "/version"), ("POST", "/predict")):
        answer = httpx.request(method, base + path, json=EXAMPLE if method == "POST" else None)
        assert answer.status_code == 503 and answer.headers["Content-Type"] == "application/problem+json", path
    wait_for("the reason is known", lambda: "ModelUnavailable" in httpx.get(f"{base}/readyz").json()["detail"])
    assert str(tmp_path) not in httpx.get(f"{base}/readyz").text


def test_a_copy_that_is_damaged_is_not_served(image: Path, start: Start) -> None:
    (image / "model.lgb").write_bytes(b"")
    base = start(ready="livez", baked_model=image).base
    ready = httpx.get(f"{base}/readyz")
    assert ready.status_code == 503 and "BundleInvalid" in ready.json()["detail"]


def test_a_journal_of_no_known_kind_is_refused() -> None:
    environment = {"ONTIME_JOURNAL_URL": "mongodb://here", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "app"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "JOURNAL_URL" in done.stderr and "postgresql://" in done.stderr
