"""Processes of ours: OpenMP waits passively, and time zones come from the locked package."""

from __future__ import annotations

import importlib.resources
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LOADED = "import ctypes; ctypes.CDLL('libgomp.so.1')  # the one that LightGBM is linked with"
NOON = "import pandas; print(pandas.Timestamp('2013-07-01 12:00', tz='America/New_York').utcoffset())"


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | environment
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)


def _spins(code: str, **environment: str) -> set[str]:
    """Return how often the OpenMP runtimes of a process spin before they sleep, as they report it themselves."""
    shown = _python(f"{code}; {LOADED}", OMP_DISPLAY_ENV="verbose", **environment).stderr
    return set(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", shown))


@pytest.mark.parametrize("package", ["app", "stages", "ops", "tests.conftest"])
def test_openmp_waits_without_spinning_in_every_package(package: str) -> None:
    assert _spins(f"import {package}") == {"0"}


def test_openmp_spins_without_the_setting_and_a_given_one_is_kept() -> None:
    assert "0" not in _spins("import sys")
    assert "0" not in _spins("import app", OMP_WAIT_POLICY="active")


@pytest.mark.parametrize("package", ["stages", "ops.gate"])
def test_a_wrong_time_zone_database_of_the_system_changes_nothing(package: str, tmp_path: Path) -> None:
    tokyo = importlib.resources.files("tzdata") / "zoneinfo" / "Asia" / "Tokyo"
    (tmp_path / "America").mkdir()
    (tmp_path / "America" / "New_York").write_bytes(tokyo.read_bytes())
    assert _python(NOON, PYTHONTZPATH=str(tmp_path)).stdout == "9:00:00\n"
    assert _python(f"import {package}; {NOON}", PYTHONTZPATH=str(tmp_path)).stdout == "-1 day, 20:00:00\n"
