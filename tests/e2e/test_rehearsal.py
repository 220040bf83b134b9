"""The rehearsal's scenes: what the workflows must be red at, and green at. `make rehearse` prints them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops.rehearsal.runner import Done
from ops.rehearsal.scenes import SCENES, SceneFailed, Stage, expect, prepared


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The small project with a model in Production, its runners and its shared MLflow."""
    with prepared(tmp_path_factory.mktemp("rehearsal"), print) as stage:
        yield stage


@pytest.mark.parametrize("name", SCENES)
def test_the_workflows_do_what_they_promise(stage: Stage, name: str) -> None:
    SCENES[name](stage)


def test_a_run_that_goes_otherwise_fails_the_rehearsal() -> None:
    green, red = Done("a", "make lint", "ok", output="fine"), Done("a", "make gate", "failed", output="worse")
    expect([green], "", ["fine"])
    expect([green, red], "make gate", ["worse"])
    for done, at, says in (([green], "make gate", []), ([red], "", []), ([red], "make data", []), ([green], "", ["x"])):
        with pytest.raises(SceneFailed):
            expect(done, at, says)
