"""The cache of the served version: what is kept for whom, what is damaged, and what cannot be written."""

from __future__ import annotations

import json
import logging
import resource
import shutil
from pathlib import Path

import pytest

from app.model import bundle as model
from app.model.evaluation import EVALUATION_FILE
from app.model.served import Production
from app.registry.cache import POINTER_FILE, Cache
from app.registry.version import VERSION_FILE, Registered
from app.settings import Settings
from tests.conftest import bake

URI = "http://user:secret@127.0.0.1:9/"


def cache_of(folder: Path, uri: str = URI, **settings: str) -> Cache:
    """Return the cache in a folder."""
    return Cache(Settings(MLFLOW_TRACKING_URI=uri, model_cache=folder / "served", **settings))


def pointed(cache: Cache) -> Registered | None:
    """Return the version that is cached."""
    found = cache.pointer()
    return found and Registered(**found.model_dump(exclude={"registry"}))


@pytest.fixture
def known(baked: Path) -> Registered:
    """The registry's record of the small bundle."""
    return Registered.model_validate_json((baked / VERSION_FILE).read_bytes())


@pytest.fixture
def cache(tmp_path: Path, baked: Path, known: Registered) -> Cache:
    """A cache that holds that version."""
    cache = cache_of(tmp_path)
    cache.keep(known, baked)
    return cache


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the cache has logged."""
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    return [record.getMessage() for record in caplog.records if record.name == "app.registry.cache"]


def test_a_kept_version_is_loaded_as_it_was_registered(cache: Cache, known: Registered, tmp_path: Path) -> None:
    assert pointed(cache) == known
    served = cache.load(known, "cache")
    assert served and served.source == "cache" and served.bundle.digest == known.bundle_digest
    assert sorted(path.name for path in (tmp_path / "served").iterdir()) == sorted([known.bundle_digest, POINTER_FILE])
    assert "secret" not in (tmp_path / "served" / POINTER_FILE).read_text()


def test_a_version_is_kept_with_its_evaluation_and_with_how_it_became_production(
    known: Registered, baked: Path, tmp_path: Path
) -> None:
    facts = {"bundle_digest": known.bundle_digest, "test": {"roc_auc": 0.7}}
    (baked / EVALUATION_FILE).write_text(json.dumps(facts))
    record = Production(since=1.5, action="promote", by="ada", why="accepted", run_id="r")
    cache = cache_of(tmp_path)
    cache.keep(known.model_copy(update={"production": record}), baked)
    pointer = cache.pointer()
    served = pointer and cache.load(pointer, "cache")
    assert served and (served.evaluation, served.production) == (facts, record)


def test_a_damaged_evaluation_is_no_reason_to_remove_a_cached_version(
    cache: Cache, known: Registered, tmp_path: Path
) -> None:
    (tmp_path / "served" / known.bundle_digest / EVALUATION_FILE).write_text("{")
    for _ in range(2):
        served = cache.load(known, "cache")
        assert served and served.evaluation is None


def test_a_version_that_is_neither_cached_nor_downloaded_is_not_pointed_to(cache: Cache, known: Registered) -> None:
    cache.keep(known.model_copy(update={"version": "8", "bundle_digest": "0" * 64}))
    assert pointed(cache) == known and cache.load(known, "cache")
    cache.keep(known.model_copy(update={"version": "8"}))  # the same bundle
    assert (found := pointed(cache)) and found.version == "8"


def test_the_version_of_another_registry_name_or_alias_is_not_used(cache: Cache, tmp_path: Path) -> None:
    assert cache.pointer()
    for other in (
        cache_of(tmp_path, "http://127.0.0.1:10"),
        cache_of(tmp_path, model_name="other"),
        cache_of(tmp_path, model_alias="staging"),
        Cache(Settings(MLFLOW_TRACKING_URI=URI, model_cache="none")),
        cache_of(tmp_path, "", baked_model=str(tmp_path)),  # no registry
    ):
        assert other.pointer() is None


def test_the_version_of_another_alias_is_not_kept(cache: Cache, known: Registered, baked: Path) -> None:
    cache.keep(known.model_copy(update={"alias": "", "version": "8"}), baked)
    assert pointed(cache) == known


def test_a_sqlite_registry_is_the_same_by_its_relative_and_its_absolute_path(
    known: Registered, baked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache_of(tmp_path, "sqlite:///mlflow.db").keep(known, baked)
    assert pointed(cache_of(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")) == known


@pytest.mark.parametrize("name", [model.MODEL_FILE, model.MANIFEST_FILE])
@pytest.mark.parametrize("damage", ["changed", "truncated", "missing"])
def test_a_damaged_bundle_is_not_loaded_is_logged_in_one_line_and_removed(
    name: str, damage: str, cache: Cache, known: Registered, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "served" / known.bundle_digest / name
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(content[:-1] + (b"" if damage == "truncated" else b" "))
    assert cache.load(known, "cache") is None
    (line,) = warnings(caplog)
    assert "damaged" in line and "\n" not in line and not file.parent.exists()
    assert cache.load(known, "cache") is None and len(warnings(caplog)) == 1


def test_another_whole_bundle_in_its_place_is_not_loaded(
    cache: Cache, known: Registered, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = known.model_copy(update={"bundle_digest": "0" * 64})
    shutil.copytree(tmp_path / "served" / known.bundle_digest, tmp_path / "served" / other.bundle_digest)
    assert cache.load(other, "cache") is None and "does not match" in warnings(caplog)[0]


@pytest.mark.parametrize("content", ["", '{"name": "flight', "[]", "{}"])
def test_a_half_written_pointer_is_none(content: str, cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "served" / POINTER_FILE).write_text(content)
    assert cache.pointer() is None


@pytest.mark.parametrize("digest", ["", "..", "../../etc", "0" * 63, "A" * 64])
def test_a_digest_that_is_none_names_no_folder(digest: str, cache: Cache, known: Registered, baked: Path) -> None:
    odd = known.model_copy(update={"bundle_digest": digest})
    cache.keep(odd, baked)
    assert cache.load(odd, "cache") is None and pointed(cache) == known


def test_a_new_version_replaces_the_former_one(
    cache: Cache, known: Registered, bundle_dir: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    shutil.copytree(bundle_dir, second)
    manifest = second / model.MANIFEST_FILE
    manifest.write_bytes(manifest.read_bytes().rstrip() + b"\n\n")  # another digest
    again = bake(second, "8", tmp_path / "again")
    new = Registered.model_validate_json((again / VERSION_FILE).read_bytes())
    other = cache_of(tmp_path)  # of another service
    other.keep(new, again)
    assert pointed(cache) == new and cache.load(new, "cache") and cache.load(known, "cache") is None
    cache.keep(new, again)  # the second one to download it
    assert len(list((tmp_path / "served").iterdir())) == 2


@pytest.mark.parametrize("cause", ["a file is in its place", "no space"])
def test_a_cache_that_cannot_be_written_is_logged_in_one_line_and_left_as_it_was(
    cause: str, known: Registered, baked: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = cache_of(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if cause == "no space":
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    else:
        (tmp_path / "served").write_text("")
    try:
        cache.keep(known, baked)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (line,) = warnings(caplog)
    assert "ONTIME_MODEL_CACHE" in line and "\n" not in line
    assert cache.pointer() is None and not list((tmp_path / "served").glob("*"))
