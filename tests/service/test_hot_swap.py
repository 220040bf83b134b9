"""Versions change and registries fail under traffic: no request fails, and none is answered by another version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.model.bundles import MODEL_FILE
from tests.support.processes import free_port, wait_for
from tests.support.servers.registry import Registry
from tests.support.servers.service import NAME, Service, Start, Traffic, started

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
    """Return how often a service has looked at the alias with this result."""
    return service.metric(f'model_reloads_total{{result="{result}"}}')


@pytest.mark.parametrize("swaps", [3, pytest.param(50, marks=pytest.mark.long)])
def test_swaps_under_load(following: Service, mlflow_registry: Registry, swaps: int) -> None:
    swapped, failed = reloads(following, "swapped"), reloads(following, "failed")
    with Traffic(following.base) as traffic:
        for i in range(swaps):
            version = str((i + 1) % 3 + 1)
            mlflow_registry.point(version)
            wait_for(f"version {version} is served", lambda v=version: following.serves(v))
        mlflow_registry.point("2")  # two within a second
        mlflow_registry.point("3")
        wait_for("the last one is served", lambda: following.serves("3"))
        unchanged = reloads(following, "unchanged")
        wait_for("more looks at the alias", lambda: reloads(following, "unchanged") >= unchanged + 5)
        assert following.serves("3")
    assert_sound(traffic, mlflow_registry)
    assert traffic.versions() == {"1", "2", "3"}
    assert reloads(following, "swapped") >= swapped + swaps and reloads(following, "failed") == failed


def test_a_damaged_version_is_not_served(following: Service, mlflow_registry: Registry, bundles: list[Path]) -> None:
    failed = reloads(following, "failed")
    bad = mlflow_registry.publish(bundles[1])
    source = mlflow_registry.client.get_model_version(NAME, bad).source.removeprefix("models:/")
    (file,) = (path for path in (mlflow_registry.folder / "store").rglob(MODEL_FILE) if source in str(path))
    file.write_bytes(file.read_bytes()[:1000])
    with Traffic(following.base) as traffic:
        mlflow_registry.point(bad)
        wait_for("it is refused", lambda: reloads(following, "failed") >= failed + 5)
        assert following.serves("1") and httpx.get(f"{following.base}/readyz").status_code == 200
        mlflow_registry.point("3")
        wait_for("the next good version is served", lambda: "3" in traffic.versions())
    assert_sound(traffic, mlflow_registry)
    assert traffic.versions() == {"1", "3"}


@pytest.mark.long
def test_each_of_several_workers_follows(mlflow_registry: Registry, start: Start) -> None:
    mlflow_registry.point("1")
    service = start(mlflow_uri=mlflow_registry.uri, refresh_seconds=QUICK, journal_url="none", workers=2)
    wait_for("both have a model, /readyz is of one", lambda: all(service.serves("1") for _ in range(40)))
    with Traffic(service.base) as traffic:
        mlflow_registry.point("2")
        wait_for("both serve the new one", lambda: all(service.serves("2") for _ in range(40)))
    assert traffic.answers[-1][0] == "2"
    assert_sound(traffic, mlflow_registry)


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
