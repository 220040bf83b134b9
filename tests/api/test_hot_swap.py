"""Versions change and registries fail under traffic: no request fails, and none is answered by another version."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.model import bundle as model
from app.registry.version import DIGEST_TAG
from tests.conftest import free_port
from tests.support.processes import wait_for
from tests.support.registry import Registry
from tests.support.service import NAME, Service, Start, Traffic, started

QUICK = 0.05


def assert_sound(traffic: Traffic, registry: Registry) -> None:
    """Assert that no request failed, and each answer is that of the version in its header and its body."""
    assert not traffic.failed and len(traffic.answers) > 20
    for header, body, _, probability in traffic.answers:
        assert header == body and probability == registry.versions[header]


@pytest.fixture(scope="module")
def follower(mlflow_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that follows the alias."""
    mlflow_registry.point("1")
    settings = {"ONTIME_REFRESH_SECONDS": str(QUICK), "ONTIME_JOURNAL_URL": "none"}
    with started(tmp_path_factory.mktemp("follower"), MLFLOW_TRACKING_URI=mlflow_registry.uri, **settings) as service:
        yield service


@pytest.fixture
def following(follower: Service, mlflow_registry: Registry) -> Service:
    """The service while the alias names version 1, and it serves that."""
    mlflow_registry.point("1")
    wait_for("version 1 is served", lambda: follower.serves("1"))
    return follower


def reloads(service: Service, result: str) -> float:
    """Return how often a service has loaded a version, or failed to."""
    return service.metric(f'model_reloads_total{{result="{result}"}}')


@pytest.mark.parametrize("swaps", [9, pytest.param(50, marks=pytest.mark.long)])
def test_swaps_under_load(following: Service, mlflow_registry: Registry, swaps: int) -> None:
    swapped, failed = reloads(following, "swapped"), reloads(following, "failed")
    with Traffic(following.base) as traffic:
        for i in range(swaps):
            version = str((i + 1) % 3 + 1)
            mlflow_registry.point(version)
            wait_for(f"version {version} is served", lambda v=version: following.serves(v))
    assert_sound(traffic, mlflow_registry)
    assert traffic.versions() == {"1", "2", "3"}
    assert reloads(following, "swapped") >= swapped + swaps and reloads(following, "failed") == failed


def test_two_versions_promoted_within_a_second(following: Service, mlflow_registry: Registry) -> None:
    with Traffic(following.base) as traffic:
        mlflow_registry.point("2")
        mlflow_registry.point("3")
        wait_for("the last one is served", lambda: following.serves("3"))
        time.sleep(20 * QUICK)
        assert following.serves("3")
    assert_sound(traffic, mlflow_registry)


def test_each_of_several_workers_follows(mlflow_registry: Registry, start: Start) -> None:
    mlflow_registry.point("1")
    service = start(mlflow_uri=mlflow_registry.uri, refresh_seconds=QUICK, journal_url="none", workers=2)
    wait_for(
        "both have a model: /readyz is of the one that answers", lambda: all(service.serves("1") for _ in range(40))
    )
    with Traffic(service.base) as traffic:
        mlflow_registry.point("2")
        wait_for("both serve the new one", lambda: all(service.serves("2") for _ in range(40)))
    assert traffic.answers[-1][0] == "2"
    assert_sound(traffic, mlflow_registry)


def broken(kind: str, bundle: Path, registry: Registry) -> str:
    """Register a version that must not be served, and return it."""
    if kind == "wrong hash":
        return registry.publish(bundle, digest="0" * 64)
    if kind == "unknown feature":
        manifest = json.loads((bundle / model.MANIFEST_FILE).read_text())
        version = registry.publish(bundle)
        manifest["features"][-1] = "moon_phase"
        content = json.dumps(manifest).encode()
        replace(registry, version, model.MANIFEST_FILE, content)
        digest = hashlib.sha256(content).hexdigest()
        registry.client.set_model_version_tag(NAME, version, DIGEST_TAG, digest)  # all hashes are right
        return version
    version = registry.publish(bundle)
    text = (bundle / model.MODEL_FILE).read_bytes()
    replace(registry, version, model.MODEL_FILE, text[: len(text) // 2])
    return version


def replace(registry: Registry, version: str, name: str, content: bytes) -> None:
    """Overwrite a file of a version in the artifact store."""
    source = registry.client.get_model_version(NAME, version).source.removeprefix("models:/")
    found = [path for path in (registry.folder / "store").rglob(name) if source in str(path)]
    assert len(found) == 1, found
    found[0].write_bytes(content)


@pytest.mark.parametrize("kind", ["wrong hash", "truncated", "unknown feature"])
def test_a_version_that_is_damaged_is_not_served_and_the_old_one_stays(
    kind: str, following: Service, mlflow_registry: Registry, bundles: list[Path]
) -> None:
    failed = reloads(following, "failed")
    bad = broken(kind, bundles[1], mlflow_registry)
    with Traffic(following.base) as traffic:
        mlflow_registry.point(bad)
        wait_for("it is refused", lambda: reloads(following, "failed") >= failed + 5)
        assert following.serves("1") and httpx.get(f"{following.base}/readyz").status_code == 200
        mlflow_registry.point("3")
        wait_for("the next good version is served", lambda: "3" in traffic.versions())
    assert_sound(traffic, mlflow_registry)
    assert traffic.versions() == {"1", "3"}


@pytest.mark.long
def test_a_registry_that_goes_and_comes_back(mlflow_registry: Registry, start: Start, image: Path) -> None:
    mlflow_registry.point("2")
    port = free_port()
    registry = mlflow_registry.twin(port)
    settings = {"mlflow_uri": registry.uri, "refresh_seconds": QUICK, "journal_url": "none"}
    baked = start(baked_model=image, **settings)
    bare = start(ready="livez", **settings)
    wait_for("the first look", lambda: reloads(bare, "failed"))
    refusal = httpx.get(f"{bare.base}/readyz")
    assert refusal.status_code == 503 and "ModelUnavailable" in refusal.json()["detail"]
    assert baked.version()["source"] == "baked"
    with Traffic(baked.base) as traffic:
        with registry.server(port):
            for service in (baked, bare):
                wait_for("the registry's version is served", lambda s=service: s.serves("2"))
                assert service.version()["source"] == "registry"
        failures = reloads(baked, "failed")
        wait_for("the registry is gone", lambda: reloads(baked, "failed") > failures)
        assert baked.serves("2") and bare.serves("2")
    assert not traffic.failed and traffic.versions() == {"1", "2"}
