"""The rehearsal's scenes: what the workflows must be red at, and green at. `make rehearse` prints them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ops.rehearsal.delivery import DELIVERY
from ops.rehearsal.runner import Done
from ops.rehearsal.scenes import SCENES, SceneFailed, Stage, expect, prepared
from ops.rehearsal.sites import World, world
from ops.release.docker import has_engine
from tests.support.release import BUILD


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """The small project with a first model, and its runners."""
    return prepared(tmp_path_factory.mktemp("rehearsal"), print)


@pytest.fixture(scope="module")
def outside(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The shared MLflow, the registry of images, and the machines."""
    if not has_engine() and not os.environ.get("CI"):
        pytest.skip("no Docker engine answers on this machine")
    with pytest.MonkeyPatch.context() as patch, world(stage, tmp_path_factory.mktemp("world")) as made:
        patch.setenv("DOCKER_BUILD_FLAGS", BUILD["DOCKER_BUILD_FLAGS"])
        yield made


@pytest.mark.parametrize("name", SCENES)
def test_the_workflows_do_what_they_promise(stage: Stage, name: str) -> None:
    SCENES[name](stage)


@pytest.mark.parametrize("name", DELIVERY)
def test_a_release_arrives_and_goes_back(outside: World, name: str) -> None:
    DELIVERY[name](outside)


def test_a_run_that_goes_otherwise_fails_the_rehearsal() -> None:
    green, red = Done("a", "make lint", "ok", output="fine"), Done("a", "make gate", "failed", output="worse")
    expect([green], "", ["fine"])
    expect([green, red], "make gate", ["worse"])
    for done, at, says in (([green], "make gate", []), ([red], "", []), ([red], "make data", []), ([green], "", ["x"])):
        with pytest.raises(SceneFailed):
            expect(done, at, says)
