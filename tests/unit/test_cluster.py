"""The engine `ray` without a cluster: what is missing or wrong is said in one line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from app.errors import OnTimeError
from stages import cluster, params
from stages.errors import ParamsInvalid
from tests.conftest import ROOT
from tests.support.processes import free_port
from tests.support.scratch import read_params, write_params


def refused() -> str:
    """Return the error of a connection."""
    with pytest.raises(OnTimeError) as error, cluster.cluster():
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cluster.ADDRESS, raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert refused() == "The engine `ray` needs Ray, which is not installed: make ray"


def test_an_address_at_which_nothing_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cluster.ADDRESS, address := f"127.0.0.1:{free_port()}")
    assert refused().startswith(f"no Ray cluster answers at RAY_ADDRESS={address}: Connection refused. Start it, ")


@pytest.mark.parametrize("address", ["auto", "ray://host:10001", "host", "host:port"])
def test_an_address_that_is_none_is_named(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cluster.ADDRESS, address)
    assert refused().startswith(f"RAY_ADDRESS is {address}, must be HOST:PORT of a cluster")


def test_ray_with_whole_tables_is_refused(tmp_path: Path) -> None:
    write_params(tmp_path, read_params(ROOT) | {"engine": "ray", "partition": "all"})
    message = f"{tmp_path}/params.yaml: engine: ray divides the rows by month, and needs partition: month."
    with pytest.raises(ParamsInvalid, match=re.escape(message)):
        params.load(tmp_path / "params.yaml")
