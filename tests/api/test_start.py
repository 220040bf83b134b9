"""How the service starts when something is missing."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from app.__main__ import advice
from app.interface import EXAMPLE
from app.registry.cache import Cache
from app.registry.version import VERSION_FILE, Registered
from app.settings import Settings
from tests.conftest import ROOT
from tests.support.processes import free_port, running, wait_for
from tests.support.registry import Registry
from tests.support.service import NAME, Start


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


IPV6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


def refused(code: int = 1, **settings: object) -> str:
    """Start the service with settings that it refuses, with this exit code; return its error line."""
    environment = {f"ONTIME_{name.upper()}": str(value) for name, value in settings.items()} | {"PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "app"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code and done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    return done.stderr


@pytest.mark.parametrize("family", [socket.AF_INET, pytest.param(socket.AF_INET6, marks=IPV6)])
def test_a_port_in_use_is_named_with_the_way_out(family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family) as taken:
        taken.bind((host, 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = refused(host=host, port=port)
    shown = host if family == socket.AF_INET else f"[{host}]"
    assert f"{shown}:{port}" in error and f"make serve PORT={port + 1}" in error


def test_the_port_after_the_last_one_is_not_advised() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 65535))
        taken.listen()
        error = refused(port=65535)
    assert "make serve PORT=8000" in error and "65536" not in error


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "a..b"])
def test_an_address_of_another_machine_is_not_answered_with_another_port(host: str) -> None:
    error = refused(host=host)
    assert host in error and "ONTIME_HOST" in error and "PORT=" not in error


def test_a_port_that_needs_privileges_is_answered_with_one_that_does_not() -> None:
    assert "make serve PORT=8000" in advice(PermissionError(errno.EACCES, "Permission denied"), 80)


@IPV6
@pytest.mark.parametrize(("host", "reached"), [("[::1]", ["[::1]"]), ("::", ["[::1]", "127.0.0.1"])])
def test_the_service_listens_on_ipv6(tmp_path: Path, host: str, reached: list[str]) -> None:
    port = free_port()
    settings = {"ONTIME_HOST": host, "ONTIME_PORT": str(port), "ONTIME_DRAIN_SECONDS": "0", "PYTHONPATH": str(ROOT)}
    with running([sys.executable, "-m", "app"], f"http://[::1]:{port}/livez", tmp_path, **settings) as service:
        for address in reached:
            assert httpx.get(f"http://{address}:{port}/livez").status_code == 200
        assert f"listening on http://[{host.strip('[]')}]:{port}, see /docs" in service.output()


@pytest.mark.parametrize(
    ("setting", "value"), [("PORT", "99999"), ("ROOT_PATH", "risk"), ("ROOT_PATH", "/risk/"), ("ROOT_PATH", "/a?b")]
)
def test_a_wrong_setting_is_named(setting: str, value: str) -> None:
    assert setting in refused(2, **{setting: value})


def test_without_a_model_the_service_lives_and_says_that_it_is_not_ready(tmp_path: Path, start: Start) -> None:
    service = start(ready="livez", mlflow_uri=f"sqlite:///{tmp_path}/mlflow.db")
    base = service.base
    for method, path in (("GET", "/readyz"), ("GET", "/version"), ("POST", "/predict")):
        answer = httpx.request(method, base + path, json=EXAMPLE if method == "POST" else None)
        assert answer.status_code == 503 and answer.headers["Content-Type"] == "application/problem+json", path
    wait_for("the reason is known", lambda: "VersionMissing" in httpx.get(f"{base}/readyz").json()["detail"])
    assert all(str(tmp_path) not in httpx.get(f"{base}/readyz").text for _ in range(20))
    lines = [json.loads(line) for line in service.process.output().splitlines() if '"app.http"' in line]
    logged = [(line["path"], line["level"]) for line in lines]
    assert logged.count(("/predict", "warning")) == 1 and "error" not in dict(logged).values()
    assert logged.count(("/readyz", "warning")) <= 3  # once for each reason, however often it is polled


def test_a_copy_that_is_damaged_is_not_served(image: Path, start: Start) -> None:
    (image / "model.lgb").write_bytes(b"")
    base = start(ready="livez", baked_model=image).base
    ready = httpx.get(f"{base}/readyz")
    assert ready.status_code == 503 and "BundleInvalid" in ready.json()["detail"]


def cached(baked: Path, folder: Path, uri: str) -> Path:
    """Keep a version of a registry in the default cache of a folder; return the folder of its bundle."""
    known = Registered.model_validate_json((baked / VERSION_FILE).read_bytes())
    cache = folder / "build/served"
    Cache(Settings(MLFLOW_TRACKING_URI=uri, model_cache=cache)).keep(known, baked)
    return cache / known.bundle_digest


@pytest.mark.parametrize("command", [["app"], ["ops.cli", "model", "serve"]])
def test_a_cached_version_is_served_without_its_registry(command: list[str], baked: Path, tmp_path: Path) -> None:
    uri, port = f"http://127.0.0.1:{free_port()}", free_port()
    cached(baked, tmp_path, uri)
    base, settings = f"http://127.0.0.1:{port}", {"ONTIME_PORT": str(port), "ONTIME_DRAIN_SECONDS": "0"}
    settings |= {"ONTIME_JOURNAL_URL": "none", "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(ROOT)}
    with running([sys.executable, "-m", *command], f"{base}/readyz", tmp_path, **settings):
        assert httpx.post(f"{base}/predict", json=EXAMPLE).headers["X-Model-Version"] == "7"
        version = httpx.get(f"{base}/version").json()
        assert version["source"] == "cache" and version["alias"] == "production"
        failed = 'model_reloads_total{result="failed"} 1.0'
        wait_for("the registry was polled", lambda: failed in httpx.get(f"{base}/metrics").text)
        assert httpx.get(f"{base}/version").json() == version


def test_a_damaged_cache_is_not_served(baked: Path, tmp_path: Path, start: Start) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    (cached(baked, tmp_path, uri) / "model.lgb").write_bytes(b"")
    service = start(ready="livez", mlflow_uri=uri, journal_url="none")
    assert httpx.get(f"{service.base}/readyz").status_code == 503
    assert service.process.output().count("the cached model is damaged") == 1


def test_a_copy_in_the_image_is_served_where_the_cache_is_damaged(
    baked: Path, image: Path, tmp_path: Path, start: Start
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    (cached(baked, tmp_path, uri) / "manifest.json").unlink()
    assert start(mlflow_uri=uri, baked_model=image, journal_url="none").version()["source"] == "baked"


@pytest.mark.long
def test_a_cached_version_is_replaced_by_the_promoted_one(mlflow_registry: Registry, start: Start) -> None:
    mlflow_registry.point("2")
    port = free_port()
    registry = mlflow_registry.twin(port)
    settings = {"mlflow_uri": registry.uri, "refresh_seconds": 0.05, "journal_url": "none"}
    with registry.server(port):
        assert start(**settings).version()["source"] == "registry"
    again = start(**settings)  # beside the first one, on the same cache
    assert again.serves("2") and again.version()["source"] == "cache"
    with registry.server(port):
        wait_for("the registry confirms it", lambda: again.version()["source"] == "registry")
        registry.point("3")
        wait_for("the promoted version is served", lambda: again.serves("3"))
        registry.client.delete_registered_model_alias(NAME, "production")
        bare = start(ready="livez", **settings)
        wait_for(
            "the alias is missing",
            lambda: "VersionMissing" in bare.process.output() + httpx.get(f"{bare.base}/readyz").text,
        )
        assert httpx.get(f"{bare.base}/readyz").status_code == 503 and again.serves("3")
    third = start(ready="livez", **settings)
    assert httpx.get(f"{third.base}/readyz").status_code == 503, "what was withdrawn is not served again"


def test_a_journal_of_no_known_kind_is_refused() -> None:
    error = refused(2, journal_url="mongodb://here")
    assert "JOURNAL_URL" in error and "postgresql://" in error
