"""Looking at the alias: what is asked of the registry, when a version is downloaded again, and what may hang."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import State

from app.errors import BundleInvalid, ModelUnavailable
from app.metrics import Metrics
from app.model.served import Production
from app.registry import download, watch
from app.registry.alias import find, find_by_http
from app.registry.cache import Cache
from app.registry.version import VERSION_FILE, Registered
from app.registry.watch import Downloads, Watcher
from app.settings import Settings
from tests.conftest import bake


class FakeDownloads(Downloads):
    """Hands out folders made beforehand; a version without one is damaged."""

    def __init__(self, folders: dict[str, Path]) -> None:
        super().__init__()
        self.folders, self.alias = folders, ""
        self.record: Production | None = None
        self.asked: list[str] = []

    async def request(self, *command: str) -> Registered:
        """Answer as app.registry.download does."""
        if command[0] == "find":
            if self.alias in self.folders:
                found = Registered.model_validate_json((self.folders[self.alias] / VERSION_FILE).read_bytes())
                return found.model_copy(update={"production": self.record})
            return Registered(name=command[2], version=self.alias, alias=command[3], run_id=None, bundle_digest="")
        version, target = command[3], command[5]
        self.asked.append(version)
        if version not in self.folders:
            raise BundleInvalid(f"version {version} is damaged")
        for file in self.folders[version].iterdir():
            (Path(target) / file.name).write_bytes(file.read_bytes())
        return Registered.model_validate_json((Path(target) / VERSION_FILE).read_bytes())


@pytest.fixture
def downloads(bundle_dir: Path, tmp_path: Path) -> FakeDownloads:
    """Two good versions, 1 and 2; all others are damaged."""
    return FakeDownloads({version: bake(bundle_dir, version, tmp_path / version) for version in ("1", "2")})


@pytest.fixture
def watcher(downloads: FakeDownloads) -> Watcher:
    """A watcher of these."""
    settings = Settings(MLFLOW_TRACKING_URI="sqlite:///none.db", model_cache="none")
    made = Watcher(State({"settings": settings, "served": None, "metrics": Metrics(), "reason": ""}))
    made.downloads = downloads
    return made


def look(watcher: Watcher, alias: str, times: int = 1) -> str | None:
    """Poll the alias, and return the version that is served then."""
    watcher.downloads.alias = alias  # type: ignore[attr-defined]
    for _ in range(times):
        asyncio.run(watcher.poll())
    return watcher.state.served and watcher.state.served.version


def result(watcher: Watcher, name: str) -> float | None:
    """Return the number of polls with this result."""
    return watcher.state.metrics.registry.get_sample_value("model_reloads_total", {"result": name})


def test_a_version_is_downloaded_once_and_served_until_another_one_is_named(
    watcher: Watcher, downloads: FakeDownloads
) -> None:
    assert look(watcher, "1", 3) == "1" and look(watcher, "2") == "2" and look(watcher, "1") == "1"
    assert downloads.asked == ["1", "2", "1"]
    assert (result(watcher, "swapped"), result(watcher, "unchanged"), result(watcher, "failed")) == (3, 2, 0)


def test_a_version_that_failed_is_downloaded_again_after_a_while_that_doubles_and_another_one_at_once(
    watcher: Watcher, downloads: FakeDownloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert look(watcher, "1") == "1"
    assert look(watcher, "9", 5) == "1" and downloads.asked == ["1", "9"]
    for seconds in (watch.FIRST_RETRY_SECONDS, 2 * watch.FIRST_RETRY_SECONDS):
        now += seconds - 1
        look(watcher, "9", 5)
        before = len(downloads.asked)
        now += 2
        look(watcher, "9", 5)
        assert len(downloads.asked) == before + 1
    assert result(watcher, "failed") == 25  # each poll that does not serve what the alias names
    assert look(watcher, "2") == "2"
    assert look(watcher, "9") == "2" and downloads.asked[-2:] == ["2", "9"]


def test_a_damaged_version_is_logged_once(watcher: Watcher, caplog: pytest.LogCaptureFixture) -> None:
    look(watcher, "1")
    look(watcher, "9", 5)
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["version 1 stays: version 9 is damaged"]


def test_a_cached_version_is_served_first_stays_after_a_failure_and_spares_the_download(
    downloads: FakeDownloads, tmp_path: Path
) -> None:
    settings = Settings(MLFLOW_TRACKING_URI="sqlite:///none.db", model_cache=tmp_path / "served")
    known = {
        v: Registered.model_validate_json((path / VERSION_FILE).read_bytes()) for v, path in downloads.folders.items()
    }
    Cache(settings).keep(known["1"], downloads.folders["1"])
    watcher = Watcher(State({"settings": settings, "served": None, "metrics": Metrics(), "reason": ""}))
    watcher.downloads = downloads

    async def start() -> None:
        watcher.start().cancel()

    asyncio.run(start())
    assert watcher.state.served.source == "cache"
    assert look(watcher, "9") == "1" and watcher.state.served.source == "cache" and result(watcher, "failed") == 1
    assert look(watcher, "1") == "1" and watcher.state.served.source == "registry"
    Cache(settings).keep(known["2"], downloads.folders["2"])  # as a promotion does
    assert look(watcher, "2") == "2" and downloads.asked == ["9"]


def test_a_record_that_changes_is_served_and_cached_at_the_next_poll_without_loading_the_model_again(
    downloads: FakeDownloads, tmp_path: Path
) -> None:
    settings = Settings(MLFLOW_TRACKING_URI="sqlite:///none.db", model_cache=tmp_path / "served")
    watcher = Watcher(State({"settings": settings, "served": None, "metrics": Metrics(), "reason": ""}))
    watcher.downloads = downloads
    look(watcher, "1")
    before = watcher.state.served
    assert before.production is None
    for number in range(2):
        downloads.record = Production(since=number, action="promote", by="ada", why="accepted", run_id="r")
        look(watcher, "1", 2)
        served, pointer = watcher.state.served, Cache(settings).pointer()
        assert served.bundle is before.bundle and served.production == downloads.record
        assert pointer and pointer.production == downloads.record
    assert downloads.asked == ["1"] and result(watcher, "swapped") == 1 and result(watcher, "unchanged") == 4


def test_the_record_of_a_baked_version_is_the_registry_s_and_the_cache_stays_as_it_is(
    downloads: FakeDownloads, tmp_path: Path
) -> None:
    cache = tmp_path / "served"
    settings = Settings(MLFLOW_TRACKING_URI="sqlite:///none.db", model_cache=cache, baked_model=downloads.folders["1"])
    watcher = Watcher(State({"settings": settings, "served": None, "metrics": Metrics(), "reason": ""}))
    watcher.downloads = downloads

    async def start() -> None:
        watcher.start().cancel()

    asyncio.run(start())
    downloads.record = Production(since=1, action="promote", by="ada", why="accepted", run_id="r")
    assert watcher.state.served.production is None and look(watcher, "1") == "1"
    assert watcher.state.served.source == "registry" and watcher.state.served.production == downloads.record
    assert downloads.asked == [] and not cache.exists()


def test_without_a_model_the_reason_is_there(watcher: Watcher) -> None:
    assert look(watcher, "9") is None and "BundleInvalid" in watcher.state.reason


@pytest.mark.parametrize(
    ("command", "reason"),
    [(["sleep", "60"], "within"), (["false"], "exited unexpectedly"), (["echo", "{"], "exited unexpectedly")],
)
def test_a_download_that_hangs_or_dies_is_ended_and_said(
    command: list[str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[asyncio.subprocess.Process] = []

    async def start() -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        started.append(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))
        return started[-1]

    async def ask() -> None:
        downloads = Downloads()
        for _ in range(2):  # and the next question starts a new one
            with pytest.raises(ModelUnavailable, match=reason):
                await downloads.request("find", "sqlite:///none.db", "flight-delay", "production")
            await asyncio.wait_for(started[-1].wait(), 10)

    monkeypatch.setattr(watch, "_start", start)
    monkeypatch.setattr(watch, "DOWNLOAD_SECONDS", 1)
    asyncio.run(ask())
    assert len(started) == 2


VERSION = {
    "name": "flight-delay",
    "version": "3",
    "run_id": "r",
    "creation_timestamp": 1500,
    "tags": [
        {"key": "bundle.digest", "value": "d"},
        {
            "key": "production.record",
            "value": '{"since": 1.5, "action": "promote", "by": "ada", "why": "better", "run_id": "q"}',
        },
    ],
}


@pytest.fixture
def mlflow() -> Iterator[Callable[[int, Any], tuple[str, list[Any]]]]:
    """Return a function that starts a server with one answer, and returns its address and what it was asked."""
    servers = []

    def serve(status: int, body: Any) -> tuple[str, list[Any]]:
        asked: list[Any] = []

        class Handler(BaseHTTPRequestHandler):
            """Answers the same to all."""

            def do_GET(self) -> None:  # pylint: disable=invalid-name
                """Answer."""
                asked.append((self.path, self.headers["Authorization"]))
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:  # pylint: disable=arguments-differ
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", asked

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_http_registry_is_asked_by_one_request(mlflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, asked = mlflow(200, {"model_version": VERSION})
    found = find_by_http(f"{uri}/", "flight-delay", "production")
    assert (found.version, found.alias, found.run_id, found.bundle_digest) == ("3", "production", "r", "d")
    assert found.created == 1.5
    assert found.production == Production(since=1.5, action="promote", by="ada", why="better", run_id="q")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t")
    find_by_http(uri, "flight-delay", "production")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "u")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "p")
    find_by_http(uri, "flight-delay", "production")
    path = "/api/2.0/mlflow/registered-models/alias?name=flight-delay&alias=production"
    basic = f"Basic {base64.b64encode(b'u:p').decode()}"
    assert asked == [(path, None), (path, "Bearer t"), (path, basic)]


@pytest.mark.parametrize("content", [None, b"", b"SQLite format 3\0 and no more"])
def test_a_file_that_is_no_registry_is_left_to_the_client(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    if content is not None:
        file.write_bytes(content)
    assert find(f"sqlite:///{file}", "flight-delay", "production") is None
    assert file.exists() is (content is not None)


@pytest.mark.parametrize(("status", "body"), [(404, {}), (500, b""), (200, b"<html>"), (200, {}), (200, [])])
def test_an_answer_that_names_no_version_is_no_model(mlflow: Any, status: int, body: Any) -> None:
    uri, _ = mlflow(status, body)
    with pytest.raises(ModelUnavailable, match="production of flight-delay"):
        find_by_http(uri, "flight-delay", "production")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "flavors: {python_function: {loader_module: mlflow.sklearn}}",
        "flavors: {lightgbm: {data: model.pkl}, python_function: {loader_module: mlflow.lightgbm}}",
        "flavors: {lightgbm: {data: model.lgb, code: code}, python_function: {loader_module: mlflow.lightgbm}}",
        "flavors: {lightgbm: {data: model.lgb}, python_function: {loader_module: evil}}",
    ],
)
def test_a_model_that_would_run_other_code_is_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "MLmodel").write_text(text)
    monkeypatch.setattr(download, "missing", lambda *_: "")
    monkeypatch.setattr(download.mlflow.artifacts, "download_artifacts", lambda *_, **__: str(tmp_path / "store"))
    version = type("Version", (), {"name": "flight-delay", "version": "3"})()
    with pytest.raises(BundleInvalid, match="LightGBM"):
        download.export(version, "production", "sqlite:///none.db", tmp_path / "copy")
    assert not os.listdir(tmp_path / "copy")


def test_a_password_is_not_said() -> None:
    text = download.without_password("MLflow at postgresql://user:secret@host/db and https://token@host says no")
    assert text == "MLflow at postgresql://host/db and https://host says no"


def test_an_error_that_nobody_thought_of_does_not_end_the_watch(
    watcher: Watcher, downloads: FakeDownloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    look(watcher, "1")
    with monkeypatch.context() as patch:
        patch.setattr(downloads, "request", lambda *_: 1 / 0)
        assert look(watcher, "2") == "1" and result(watcher, "failed") == 1
    assert look(watcher, "2") == "2"
