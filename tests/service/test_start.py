"""How the service starts when something is missing, taken or damaged."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from app.__main__ import advice, listen
from app.api.application import create_app
from app.environment import EnvironmentInvalid
from app.errors import ModelUnavailable, VersionMissing
from app.interface import EXAMPLE
from app.registry.cache import Cache
from app.registry.client import RegistryClient
from app.registry.registered import VERSION_FILE, Registered
from app.settings import Settings
from tests.conftest import ROOT
from tests.support.processes import free_port, running, wait_for

UNREACHABLE = "http://127.0.0.1:9"
Open = Callable[..., TestClient]


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


IPV6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Return a function that enters the application with settings; its registry replies with an error."""

    async def fail(self: RegistryClient, *command: object) -> Registered:
        raise VersionMissing("no version is production") if "sqlite" in self.uri else ModelUnavailable("unreachable")

    monkeypatch.setattr(RegistryClient, "request", fail)
    with ExitStack() as stack:

        def enter(mlflow_uri: str = UNREACHABLE, **settings: object) -> TestClient:
            read = Settings(
                **{"MLFLOW_TRACKING_URI": mlflow_uri, "journal_url": "none", "model_cache": "none"} | settings
            )
            return stack.enter_context(TestClient(create_app(read)))

        yield enter


def refused(**settings: object) -> str:
    """Return the error line with which the service ends instead of listening."""
    with pytest.raises(SystemExit) as ended:
        listen(Settings(**settings))
    line = str(ended.value.code)
    assert line.startswith("error: ") and "\n" not in line
    return line


@pytest.mark.parametrize("family", [socket.AF_INET, pytest.param(socket.AF_INET6, marks=IPV6)])
def test_a_port_in_use_is_named(family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family) as taken:
        taken.bind((host, 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = refused(host=host, port=port)
    shown = host if family == socket.AF_INET else f"[{host}]"
    assert f"{shown}:{port}" in error and f"make serve PORT={port + 1}" in error


def test_an_error_is_one_line_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        variables = {"ONTIME_PORT": str(taken.getsockname()[1]), "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-m", "app"]
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "cannot listen on 127.0.0.1" in done.stderr


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "a..b"])
def test_an_address_of_another_machine_is_named(host: str) -> None:
    error = refused(host=host, port=0)
    assert host in error and "ONTIME_HOST" in error and "PORT=" not in error


@pytest.mark.parametrize(("number", "port"), [(errno.EACCES, 80), (errno.EADDRINUSE, 65535)])
def test_a_port_that_can_be_used_is_advised(number: int, port: int) -> None:
    assert "make serve PORT=8000" in advice(OSError(number, "refused"), port)


@IPV6
@pytest.mark.parametrize(("host", "reached"), [("[::1]", ["::1"]), ("::", ["::1", "127.0.0.1"])])
def test_ipv6_is_listened_on(host: str, reached: list[str]) -> None:
    with listen(Settings(host=host, port=0)) as listener:
        listener.listen()
        for address in reached:
            socket.create_connection((address, listener.getsockname()[1]), 5).close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("PORT", "99999"),
        ("ROOT_PATH", "risk"),
        ("ROOT_PATH", "/risk/"),
        ("ROOT_PATH", "/a?b"),
        ("JOURNAL_URL", "mongodb://here"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ONTIME_{setting}", value)
    with pytest.raises(EnvironmentInvalid, match=setting):
        Settings.read()


def test_without_a_model_it_lives_and_is_not_ready(
    client: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session = client(f"sqlite:///{tmp_path}/mlflow.db")
    wait_for("the reason", lambda: "VersionMissing" in session.get("/readyz").json()["detail"])
    caplog.clear()
    assert session.get("/livez").status_code == 200
    for method, path in (("GET", "/readyz"), ("GET", "/version"), ("POST", "/predict")):
        answer = session.request(method, path, json=EXAMPLE if method == "POST" else None)
        assert answer.status_code == 503 and answer.headers["Content-Type"] == "application/problem+json", path
    assert all(str(tmp_path) not in session.get("/readyz").text for _ in range(20))
    logged = [(vars(record)["path"], record.levelname) for record in caplog.records if record.name == "app.http"]
    assert logged.count(("/predict", "WARNING")) == 1 and "ERROR" not in dict(logged).values()
    assert logged.count(("/readyz", "WARNING")) <= 1  # once for each reason, however often it is polled


def test_a_damaged_copy_is_not_served(client: Open, baked: Path) -> None:
    (baked / "model.lgb").write_bytes(b"")
    ready = client("", baked_model=baked).get("/readyz")
    assert ready.status_code == 503 and "BundleInvalid" in ready.json()["detail"]


def cached(baked: Path, folder: Path, uri: str) -> Path:
    """Keep a version of a registry in a cache; return the folder of its bundle."""
    known = Registered.model_validate_json((baked / VERSION_FILE).read_bytes())
    Cache(Settings(MLFLOW_TRACKING_URI=uri, model_cache=folder)).keep(known, baked)
    return folder / known.bundle_digest


@pytest.mark.parametrize("lost", ["model.lgb", "manifest.json"])
def test_a_copy_is_served_where_the_cache_is_damaged(
    client: Open, baked: Path, tmp_path: Path, lost: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    bundle = cached(baked, cache, UNREACHABLE)
    whole = shutil.copytree(cache, tmp_path / "whole")
    (bundle / lost).write_bytes(b"")
    assert client(model_cache=cache).get("/readyz").status_code == 503
    assert caplog.text.count("the cached model is damaged") == 1
    shutil.rmtree(cache)
    whole.rename(cache)
    assert client(model_cache=cache, baked_model=baked).get("/version").json()["source"] == "cache"
    (bundle / lost).unlink()
    assert client(model_cache=cache, baked_model=baked).get("/version").json()["source"] == "baked"


def test_cached_version_is_served_without_registry(baked: Path, tmp_path: Path) -> None:
    uri, base = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    cached(baked, tmp_path / "build/served", uri)
    settings = {"ONTIME_PORT": base.rpartition(":")[2], "ONTIME_DRAIN_SECONDS": "0", "ONTIME_JOURNAL_URL": "none"}
    inherited = {"PROMETHEUS_MULTIPROC_DIR": "/nowhere", "MLFLOW_RUN_ID": "odd", "http_proxy": "http://127.0.0.1:9"}
    variables = settings | inherited | {"MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ops.cli", "model", "serve"]
    with running(command, f"{base}/readyz", tmp_path, **variables) as service:
        assert httpx.post(f"{base}/predict", json=EXAMPLE).headers["X-Model-Version"] == "7"
        version = httpx.get(f"{base}/version").json()
        assert version["source"] == "cache" and version["alias"] == "production"
        failed = 'model_reloads_total{result="failed"} 1.0'
        wait_for("the registry was polled", lambda: failed in httpx.get(f"{base}/metrics").text)
        assert httpx.get(f"{base}/version").json() == version
        assert "version 7 stays: MLflow is unreachable" in service.output()
