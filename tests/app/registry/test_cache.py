"""The cache of the served version: what is kept for whom, what is damaged, and what cannot be written."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import pytest

from app.model import bundles
from app.model.evaluation import EVALUATION_FILE
from app.model.served import Production
from app.registry.cache import POINTER_FILE, Cache
from app.registry.registered import VERSION_FILE, Registered
from app.settings import Settings
from tests.conftest import bake

URI = "http://user:secret@127.0.0.1:9/"


def cache_of(folder: Path, uri: str = URI, **settings: object) -> Cache:
    """Return the cache in a folder."""
    return Cache(Settings(**{"MLFLOW_TRACKING_URI": uri, "model_cache": folder / "served"} | settings))


def pointed(cache: Cache) -> Registered | None:
    """Return the version that is cached."""
    pointer = cache.pointer()
    return Registered(**pointer.model_dump(exclude={"registry"})) if pointer else None


@pytest.fixture
def known(baked: Path) -> Registered:
    """The registry's record of the small bundle."""
    return Registered.model_validate_json((baked / VERSION_FILE).read_bytes())


@pytest.fixture
def cache(tmp_path: Path, baked: Path, known: Registered) -> Cache:
    """A cache that holds that version, with its evaluation."""
    (baked / EVALUATION_FILE).write_text(json.dumps({"bundle_digest": known.bundle_digest}))
    cache = cache_of(tmp_path)
    cache.keep(known, baked)
    return cache


def test_a_kept_version_is_loaded_as_registered(cache: Cache, known: Registered, tmp_path: Path) -> None:
    served = cache.load(known, "cache")
    assert served and served.source == "cache" and served.bundle.digest == known.bundle_digest
    assert served.evaluation == {"bundle_digest": known.bundle_digest}
    assert sorted(path.name for path in (tmp_path / "served").iterdir()) == sorted([known.bundle_digest, POINTER_FILE])
    assert pointed(cache) == known and "secret" not in (tmp_path / "served" / POINTER_FILE).read_text()
    record = Production(since=1.5, action="promote", by="ada", why="accepted", run_id="r")
    cache.keep(known.model_copy(update={"production": record}))
    assert (pointed(cache) or known).production == record
    (tmp_path / "served" / known.bundle_digest / EVALUATION_FILE).write_text("{")  # damaged: served without
    served = cache.load(known, "cache")
    assert served and served.evaluation is None


def test_only_what_is_there_is_pointed_to(cache: Cache, known: Registered, baked: Path) -> None:
    cache.keep(known.model_copy(update={"version": "8", "bundle_digest": "0" * 64}))
    cache.keep(known.model_copy(update={"alias": "", "version": "8"}), baked)
    assert pointed(cache) == known and cache.load(known, "cache")
    same_bundle = known.model_copy(update={"version": "8"})
    cache.keep(same_bundle)
    assert pointed(cache) == same_bundle


@pytest.mark.parametrize(
    "other",
    [
        {"uri": "http://127.0.0.1:10"},
        {"model_name": "other"},
        {"model_alias": "staging"},
        {"model_cache": "none"},
        {"uri": "", "baked_model": "image"},
    ],
)
def test_another_registry_name_or_alias_is_not_used(cache: Cache, tmp_path: Path, other: dict[str, str]) -> None:
    assert cache.pointer() and cache_of(tmp_path, **other).pointer() is None


def test_sqlite_registry_has_its_absolute_path(
    known: Registered, baked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache_of(tmp_path, "sqlite:///mlflow.db").keep(known, baked)
    assert pointed(cache_of(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")) == known


@pytest.mark.parametrize("name", [bundles.MODEL_FILE, bundles.MANIFEST_FILE])
@pytest.mark.parametrize("end", [None, b"", b" "])
def test_a_damaged_bundle_is_removed(
    name: str, end: bytes | None, cache: Cache, known: Registered, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "served" / known.bundle_digest / name
    content = file.read_bytes()
    file.unlink()
    if end is not None:
        file.write_bytes(content[:-1] + end)
    assert cache.load(known, "cache") is None and cache.load(known, "cache") is None
    (line,) = caplog.messages
    assert "damaged" in line and "\n" not in line and not file.parent.exists()


def test_another_whole_bundle_is_not_loaded(
    cache: Cache, known: Registered, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = known.model_copy(update={"bundle_digest": "0" * 64})
    shutil.copytree(tmp_path / "served" / known.bundle_digest, tmp_path / "served" / other.bundle_digest)
    assert cache.load(other, "cache") is None and "does not match" in caplog.text


@pytest.mark.parametrize("content", ["", '{"name": "flight', "[]", "{}"])
def test_a_half_written_pointer_is_none(content: str, cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "served" / POINTER_FILE).write_text(content)
    assert cache.pointer() is None


@pytest.mark.parametrize("digest", ["", "..", "../../etc", "0" * 63, "A" * 64])
def test_a_digest_that_is_none_names_no_folder(digest: str, cache: Cache, known: Registered, baked: Path) -> None:
    odd = known.model_copy(update={"bundle_digest": digest})
    cache.keep(odd, baked)
    assert cache.load(odd, "cache") is None and pointed(cache) == known


def test_a_new_version_replaces_the_former_one(cache: Cache, known: Registered, baked: Path, tmp_path: Path) -> None:
    second = shutil.copytree(baked, tmp_path / "second")
    (second / bundles.MANIFEST_FILE).write_bytes(
        (second / bundles.MANIFEST_FILE).read_bytes() + b"\n"
    )  # another digest
    (second / VERSION_FILE).unlink()
    again = bake(second, "8", tmp_path / "again")
    new = Registered.model_validate_json((again / VERSION_FILE).read_bytes())
    cache_of(tmp_path).keep(new, again)  # by another service
    assert pointed(cache) == new and cache.load(new, "cache") and cache.load(known, "cache") is None
    cache.keep(new, again)  # the second one to download it
    assert len(list((tmp_path / "served").iterdir())) == 2


@pytest.mark.parametrize("full", [True, False])
def test_a_cache_that_cannot_be_written_is_logged(
    full: bool, known: Registered, baked: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not full:
        (tmp_path / "served").write_text("a file in its place")
    try:
        if full:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        cache_of(tmp_path).keep(known, baked)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (line,) = caplog.messages
    assert "ONTIME_MODEL_CACHE" in line and "\n" not in line
    assert cache_of(tmp_path).pointer() is None and not list((tmp_path / "served").glob("*"))
