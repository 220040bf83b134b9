"""The engine `ray` without a cluster: what is missing or wrong is said in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.errors import OnTimeError
from stages import params
from stages.base.errors import ParamsInvalid
from stages.on_ray import cluster
from tests.conftest import ROOT
from tests.support.repositories.scratch import read_params, write_params

NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (NOWHERE, f"no Ray cluster answers at RAY_ADDRESS={NOWHERE}: Connection refused. Start it, "),
        ("ray://host:10001", "RAY_ADDRESS is ray://host:10001, must be HOST:PORT of a cluster"),
        ("host", "RAY_ADDRESS is host, must be HOST:PORT of a cluster"),
        ("", "The engine `ray` needs Ray, which is not installed: make ray"),
    ],
)
def test_cluster_that_cannot_be_used_is_named(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cluster.ADDRESS, address)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OnTimeError) as error, cluster.cluster():
        pass
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_ray_with_whole_tables_is_refused(tmp_path: Path) -> None:
    write_params(tmp_path, read_params(ROOT) | {"engine": "ray", "partition": "all"})
    with pytest.raises(ParamsInvalid, match="params.yaml: engine: ray divides the rows by month"):
        params.load(tmp_path / "params.yaml")
