"""What the tests of the pipeline in a clone share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import Clone
from tests.support.repositories import scratch


def set_param(clone: Clone, section: str, name: str, value: Any) -> None:
    """Change params.yaml."""
    p = scratch.read_params(clone.path)
    assert p[section].get(name) != value
    p[section][name] = value
    scratch.write_params(clone.path, p)


@pytest.fixture
def changing(small: Clone) -> Iterator[Clone]:
    """The clone, which goes back to what is committed, and to its outputs, after the test."""
    yield small
    scratch.git(small.path, "checkout", "--quiet", ".")
    small.run("dvc", "checkout", "--quiet", "--force")


def executed(output: str) -> list[str]:
    """Return the stages that `dvc repro` ran."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]
