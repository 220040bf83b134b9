"""The inherited environment: what programs and scripts set and remove, and the settings read from variables."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest
from mlflow import environment_variables

from app import environment, interface, settings
from app.environment import EnvironmentInvalid
from app.settings import Inherited, Settings
from ops.monitoring.alert_receiver import ReceiverSettings
from ops.monitoring.drift.monitor import DriftSettings
from ops.training.retraining import RetrainSettings
from tests.support.repositories.clone import ROOT

APPLY = "from app import environment; environment.apply()"
SPIN = "import ctypes; ctypes.CDLL('libgomp.so.1')"  # the OpenMP that LightGBM is linked with
NOON = "import pandas; print(pandas.Timestamp('2013-07-01 12:00', tz='America/New_York').utcoffset())"
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
CLASSES = [Settings, DriftSettings, ReceiverSettings, RetrainSettings]


def python(code: str, *launcher: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a line of Python in the checkout, with these variables."""
    command = [*launcher, sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=True)


def documented(*treatments: str) -> set[str]:
    """Return the names with these treatments in the table of docs/environment.md, without prefixes."""
    text = (ROOT / "docs/environment.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    names = {name for row in rows if row[1].startswith(treatments) for name in re.findall("`(.+?)`", row[0])}
    return {name for name in names if not name.endswith("*")}


def test_the_documentation_has_what_is_done() -> None:
    assert documented("removed") - documented("removed by the scripts") == environment.REMOVED
    assert documented("set to") == set(environment.SET)


def test_mlflow_reads_every_variable_of_its_own() -> None:
    known = {str(getattr(variable, "name", "")) for variable in vars(environment_variables).values()}
    named = {name for name in environment.REMOVED | set(environment.SET) if "MLFLOW_" in name}
    assert named and named <= known


def test_every_other_name_of_ours_is_used() -> None:
    for name in settings.OTHERS.split():
        command = ["git", "grep", "--quiet", f"ONTIME_{name}", "--", "on-time", ".ci", "ops", "tests"]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0, name


def test_variables_are_applied_to_children(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*environment.REMOVED, *environment.SET, "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "odd")
    for name, value in {"MLFLOW_TRACKING_TOKEN": "", "HTTPS_PROXY": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "example.com")
    environment.apply()
    shown = dict(os.environ)
    assert not environment.REMOVED & set(shown) and environment.SET.items() <= shown.items()
    assert shown["NO_PROXY"] == shown["no_proxy"] == "example.com,127.0.0.1,localhost,::1"
    assert shown["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "odd" and "MLFLOW_TRACKING_TOKEN" not in shown


def test_importing_the_packages_changes_no_variable() -> None:
    check = "import os, warnings; before = dict(os.environ), list(warnings.filters); import app, stages, ops.cli; "
    python(
        f"{check} assert before == (dict(os.environ), list(warnings.filters))", MLFLOW_RUN_ID="x", OMP_WAIT_POLICY=""
    )


def test_scripts_remove_what_python_reads_first(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    odd = dict.fromkeys(("PYTHONHOME", "PYTHONHASHSEED", "PYTHONIOENCODING", "PYTHONWARNINGS"), "odd")
    odd |= dict.fromkeys(("PYTHONSAFEPATH", "PYTHONOPTIMIZE", "PYTHONDONTWRITEBYTECODE", "PYTHONINSPECT"), "1")
    odd |= {"PYTHONPATH": str(tmp_path), "GOMP_SPINCOUNT": "1", "MLFLOW_CONFIGURE_LOGGING": "odd"}
    odd |= dict.fromkeys(documented("removed by the scripts"), "1")
    odd |= {name: "odd" for name in environment.REMOVED if name.startswith("GIT_")}
    code = f"import sys; assert sys.flags.utf8_mode; {SHOW}"
    shown = json.loads(python(code, ROOT / "ops/ci/run", **odd).stdout)
    assert {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "OMP_WAIT_POLICY": "passive"}.items() <= shown.items()
    assert not (set(odd) - {"PIP_USER", "PIP_REQUIRE_VIRTUALENV"}) & set(shown)


def test_another_registry_than_the_store_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "https://user:secret@registry")
    with pytest.raises(EnvironmentInvalid, match="unset MLFLOW_REGISTRY_URI") as refused:
        environment.apply()
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:secret@registry")
    environment.apply()


@pytest.mark.parametrize("command", [("-m", "ops.cli", "model", "history"), ("-m", "stages.validate"), ("-m", "app")])
def test_a_refused_variable_ends_every_program(command: tuple[str, ...]) -> None:
    variables = os.environ | {"MLFLOW_REGISTRY_URI": "sqlite:///other.db"}
    line = [sys.executable, *command]
    done = subprocess.run(line, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: MLFLOW_REGISTRY_URI"), done.stderr
    assert done.stderr.count("\n") == 1 and not (ROOT / "other.db").exists()


@pytest.mark.parametrize("kind", CLASSES)
def test_an_empty_variable_is_not_set(kind: type[Inherited], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, field in kind.model_fields.items():
        variable = str(field.validation_alias or f"{kind.model_config['env_prefix']}{name.upper()}")
        monkeypatch.setenv(variable, "")
    assert kind.read() == kind.model_construct()


@pytest.mark.parametrize(
    ("kind", "name", "meant"),
    [
        (Settings, "ONTIME_API_KEYZ", "ONTIME_API_KEYS"),
        (DriftSettings, "ONTIME_DRIFT_MINUTE", "ONTIME_DRIFT_MINUTES"),
        (ReceiverSettings, "ONTIME_RECEIVER_TOKENFILE", "ONTIME_RECEIVER_TOKEN_FILE"),
        (RetrainSettings, "ONTIME_RETRAIN_REPOSITRY", "ONTIME_RETRAIN_REPOSITORY"),
    ],
)
def test_a_misspelled_setting_is_refused(
    kind: type[Inherited], name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(EnvironmentInvalid, match=f"{name} .* is {meant} meant"):
        kind.read()


def test_a_setting_of_another_version_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ONTIME_SERVICE_HOST", "10.0.0.1")  # as Kubernetes sets it for a Service named `ontime`
    monkeypatch.setenv("ONTIME_DRIFT_PORT", "1")  # of another class
    Settings.read()
    assert [record.args for record in caplog.records] == [("ONTIME_SERVICE_HOST",)]


def test_an_invalid_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONTIME_JOURNAL_URL", "none")
    assert Settings.read().journal_url == ""
    with pytest.raises(EnvironmentInvalid, match="ONTIME_JOURNAL_URL"):
        DriftSettings.read()
    monkeypatch.setenv("ONTIME_JOURNAL_URL", "sqlite:///:memory:")
    with pytest.raises(EnvironmentInvalid, match="ONTIME_JOURNAL_URL: .*must name a file"):
        Settings.read()
    monkeypatch.delenv("ONTIME_JOURNAL_URL")
    monkeypatch.setenv("ONTIME_PORT", "tcp://10.0.0.1:8000")
    with pytest.raises(EnvironmentInvalid, match="ONTIME_PORT: .*enableServiceLinks: false"):
        Settings.read()


@pytest.mark.parametrize(("code", "spins"), [(APPLY, False), ("import os", True)])
def test_openmp_waits_without_spinning(code: str, spins: bool) -> None:
    variables = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "100", "OMP_DISPLAY_ENV": "verbose"}
    reported = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", python(f"{code}; {SPIN}", **variables).stderr)
    assert reported and (set(reported) != {"0"}) is spins


@pytest.mark.parametrize("package", ["stages", "ops.gate"])
def test_the_system_s_time_zones_are_not_used(package: str, tmp_path: Path) -> None:
    tokyo = importlib.resources.files("tzdata") / "zoneinfo" / "Asia" / "Tokyo"
    (tmp_path / "America").mkdir()
    (tmp_path / "America" / "New_York").write_bytes(tokyo.read_bytes())
    assert python(NOON, PYTHONTZPATH=str(tmp_path)).stdout == "9:00:00\n"
    assert python(f"import {package}; {NOON}", PYTHONTZPATH=str(tmp_path)).stdout == "-1 day, 20:00:00\n"


def test_output_that_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "ops.cli", "data", "--help"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        f"error: No space left on device: the output, or a file below {ROOT}. Free some space"
    )


def test_an_incomplete_problem_is_an_error_not_an_exit() -> None:
    class Wanted(Protocol):
        """An interface that the problem does not have."""

        NAME: str
        NOPE: str

    error = ImportError("cannot import name 'NOPE'", name="app.problem")
    assert str(interface.gap("app.problem", Wanted, error)).startswith("app/problem/__init__.py lacks NOPE. docs/")
    error = ImportError("No module named 'stages.problem.nope'", name="stages.problem.nope")
    assert "stages/problem.nope" not in str(interface.gap("stages.problem", interface.ServingProblem, error))
    other = ImportError("No module named 'polars'", name="polars")
    assert interface.gap("app.problem", Wanted, other) is other
