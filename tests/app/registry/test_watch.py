"""The watcher of the alias: what is downloaded, served, kept, withdrawn; the process with the registry's client."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from starlette.datastructures import State

from app.environment import EnvironmentInvalid
from app.errors import BundleInvalid, ModelUnavailable, VersionMissing
from app.metrics import Metrics
from app.model.served import Production
from app.registry import client, download, watch
from app.registry.cache import Cache
from app.registry.client import RegistryClient
from app.registry.registered import VERSION_FILE, Registered
from app.registry.watch import Watcher
from app.settings import Settings
from tests.conftest import bake

RECORD = Production(since=1, action="promote", by="ada", why="accepted", run_id="r")


class FakeClient(RegistryClient):
    """A registry of folders; a version without a folder is damaged, and no alias is an error."""

    def __init__(self, folders: dict[str, Path]) -> None:
        super().__init__("sqlite:///none.db")
        self.folders = folders
        self.alias = ""
        self.record: Production | None = None
        self.exported: list[str] = []

    def known(self, version: str) -> Registered:
        """Return the record of a good version."""
        return Registered.model_validate_json((self.folders[version] / VERSION_FILE).read_bytes())

    async def find(self, name: str, alias: str) -> Registered:
        """Return the version that the alias names."""
        if not self.alias:
            raise VersionMissing("no version is production")
        if self.alias in self.folders:
            return self.known(self.alias).model_copy(update={"production": self.record})
        return Registered(name=name, version=self.alias, alias=alias, run_id=None, bundle_digest="")

    async def export(self, version: Registered, folder: Path) -> Registered:
        """Copy the folder of a version."""
        self.exported.append(version.version)
        if version.version not in self.folders:
            raise BundleInvalid(f"version {version.version} is damaged")
        for file in self.folders[version.version].iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        return self.known(version.version)


@pytest.fixture
def registry(bundle_dir: Path, tmp_path: Path) -> FakeClient:
    """A registry whose versions 1 and 2 are good; all others are damaged."""
    return FakeClient({version: bake(bundle_dir, version, tmp_path / version) for version in ("1", "2")})


def watcher_of(registry: FakeClient, **settings: object) -> Watcher:
    """Return a watcher of a registry."""
    read = Settings(**{"MLFLOW_TRACKING_URI": "sqlite:///none.db", "model_cache": "none"} | settings)
    watcher = Watcher(State({"settings": read, "served": None, "metrics": Metrics(), "reason": ""}))
    watcher.client = registry
    return watcher


@pytest.fixture
def watcher(registry: FakeClient) -> Watcher:
    """A watcher without a cache."""
    return watcher_of(registry)


def start(watcher: Watcher) -> None:
    """Start a watcher without letting it poll."""

    async def enter() -> None:
        watcher.start().cancel()

    asyncio.run(enter())


def poll(watcher: Watcher, alias: str, times: int = 1) -> str | None:
    """Poll while the alias names a version; return the version that is served then."""
    watcher.client.alias = alias  # type: ignore[attr-defined] # a FakeClient
    for _ in range(times):
        asyncio.run(watcher.poll())
    served = watcher.state.served
    return served.version if served else None


def result(watcher: Watcher, name: str) -> float | None:
    """Return the number of polls with this result."""
    value: float | None = watcher.state.metrics.registry.get_sample_value("model_reloads_total", {"result": name})
    return value


def test_a_version_is_downloaded_once(watcher: Watcher, registry: FakeClient) -> None:
    assert poll(watcher, "1", 3) == "1" and poll(watcher, "2") == "2" and poll(watcher, "1") == "1"
    assert registry.exported == ["1", "2", "1"]
    assert (result(watcher, "swapped"), result(watcher, "unchanged"), result(watcher, "failed")) == (3, 2, 0)


def test_a_failed_version_is_retried_ever_later(
    watcher: Watcher, registry: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert poll(watcher, "1") == "1"
    assert poll(watcher, "9", 5) == "1" and registry.exported == ["1", "9"]
    for seconds in (watch.FIRST_RETRY_SECONDS, 2 * watch.FIRST_RETRY_SECONDS):
        now += seconds - 1
        poll(watcher, "9", 5)
        before = len(registry.exported)
        now += 2
        poll(watcher, "9", 5)
        assert len(registry.exported) == before + 1
    assert result(watcher, "failed") == 25  # each poll that does not serve what the alias names
    assert poll(watcher, "2") == "2"
    assert poll(watcher, "9") == "2" and registry.exported[-2:] == ["2", "9"]  # at once after another version


def test_a_damaged_version_is_logged_once(watcher: Watcher, caplog: pytest.LogCaptureFixture) -> None:
    assert poll(watcher, "8") is None and "BundleInvalid" in watcher.state.reason
    poll(watcher, "1")
    poll(watcher, "9", 5)
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["no model is served: version 8 is damaged", "version 1 stays: version 9 is damaged"]


def test_a_cached_version_is_served_first(registry: FakeClient, tmp_path: Path) -> None:
    watcher = watcher_of(registry, model_cache=tmp_path / "served")
    watcher.cache.keep(registry.known("1"), registry.folders["1"])
    start(watcher)
    assert watcher.state.served.source == "cache"
    assert poll(watcher, "9") == "1" and watcher.state.served.source == "cache" and result(watcher, "failed") == 1
    assert poll(watcher, "1") == "1" and watcher.state.served.source == "registry"
    watcher.cache.keep(registry.known("2"), registry.folders["2"])  # as a promotion does
    assert poll(watcher, "2") == "2" and registry.exported == ["9"]


def test_a_withdrawn_version_leaves_the_cache(registry: FakeClient, tmp_path: Path) -> None:
    settings = {"model_cache": tmp_path / "served", "baked_model": registry.folders["2"]}
    watcher = watcher_of(registry, **settings)
    watcher.cache.keep(registry.known("1"), registry.folders["1"])
    start(watcher)
    assert watcher.state.served.version == "1"
    assert poll(watcher, "") == "2" and watcher.state.served.source == "baked"  # the registry names no version
    assert watcher.cache.pointer() is None and "VersionMissing" in watcher.state.reason


def test_a_changed_record_is_served_and_cached(registry: FakeClient, tmp_path: Path) -> None:
    watcher = watcher_of(registry, model_cache=tmp_path / "served")
    poll(watcher, "1")
    before = watcher.state.served
    assert before.production is None
    for number in range(2):
        registry.record = RECORD.model_copy(update={"since": number})
        poll(watcher, "1", 2)
        served, pointer = watcher.state.served, Cache(watcher.settings).pointer()
        assert served.bundle is before.bundle and served.production == registry.record
        assert pointer and pointer.production == registry.record
    assert registry.exported == ["1"] and result(watcher, "swapped") == 1 and result(watcher, "unchanged") == 4


def test_a_baked_version_is_confirmed_by_the_registry(registry: FakeClient, tmp_path: Path) -> None:
    cache = tmp_path / "served"
    watcher = watcher_of(registry, model_cache=cache, baked_model=registry.folders["1"])
    start(watcher)
    registry.record = RECORD
    assert watcher.state.served.production is None and poll(watcher, "1") == "1"
    assert watcher.state.served.source == "registry" and watcher.state.served.production == RECORD
    assert registry.exported == [] and not cache.exists()


def test_an_unexpected_error_does_not_end_the_watch(
    watcher: Watcher, registry: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll(watcher, "1")
    with monkeypatch.context() as patch:
        patch.setattr(registry, "find", lambda *_: 1 / 0)
        assert poll(watcher, "2") == "1" and result(watcher, "failed") == 1
    assert poll(watcher, "2") == "2"


@pytest.mark.parametrize(
    ("command", "reason"),
    [(["sleep", "60"], "did not reply within"), (["false"], "unexpectedly"), (["echo", "{"], "unexpectedly")],
)
def test_a_helper_that_hangs_or_dies_is_replaced(
    command: list[str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[asyncio.subprocess.Process] = []

    async def start_helper() -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        started.append(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))
        return started[-1]

    async def ask() -> None:
        asked = RegistryClient("sqlite:///none.db")
        for _ in range(2):
            with pytest.raises(ModelUnavailable, match=reason):
                await asked.find("flight-delay", "production")
            await asyncio.wait_for(started[-1].wait(), 10)

    monkeypatch.setattr(client, "start_helper", start_helper)
    monkeypatch.setattr(client, "FIND_SECONDS", 0.2)
    asyncio.run(ask())
    assert len(started) == 2


def test_the_helper_replies_and_ends_with_its_input(tmp_path: Path) -> None:
    async def ask() -> int | None:
        asked = RegistryClient(f"sqlite:///{tmp_path}/none.db")
        for _ in range(2):  # by the same process
            with pytest.raises(VersionMissing, match="no version of flight-delay is production.*make promote"):
                await asked.find("flight-delay", "production")
        process = asked._process  # pylint: disable=protected-access # the process that must end with the service
        assert process and process.stdin and process.returncode is None
        process.stdin.close()
        return await asyncio.wait_for(process.wait(), 60)

    assert asyncio.run(ask()) == 0 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"), [("MLFLOW_ENABLE_MULTIPART_UPLOAD", "maybe"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon")]
)
def test_a_value_that_mlflow_cannot_read_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    download.check_variables()
    monkeypatch.setenv(name, value)
    with pytest.raises(EnvironmentInvalid, match=f"unset {name}"):
        download.check_variables()


def test_a_password_is_not_shown() -> None:
    text = download.without_password("MLflow at postgresql://user:se@cret@host/db and https://token@host says no")
    assert text == "MLflow at postgresql://host/db and https://host says no"
    text = download.without_password("postgresql://host/db?user=a&sslpassword=secret&connect_timeout=1 and ?Token=b")
    assert text == "postgresql://host/db?user=a&sslpassword=***&connect_timeout=1 and ?Token=***"
