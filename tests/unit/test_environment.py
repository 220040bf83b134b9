"""The inherited environment: the list of variables, what is done about each, and the settings read from them."""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import environment_variables

from app import environment
from app.environment import EnvironmentInvalid
from app.settings import Inherited, Settings
from ops.monitoring.alert_receiver import ReceiverSettings
from ops.monitoring.drift.monitor import DriftSettings
from ops.retraining.decide import RetrainSettings
from tests.support.clone import ROOT

LOADED = "import ctypes; ctypes.CDLL('libgomp.so.1')  # the one that LightGBM is linked with"
NOON = "import pandas; print(pandas.Timestamp('2013-07-01 12:00', tz='America/New_York').utcoffset())"
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
CLASSES = [Settings, DriftSettings, ReceiverSettings, RetrainSettings]
LABELS = {"launcher": "removed by the scripts"}


def _python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True, check=True)


def _names(*treatments: str) -> list[str]:
    """Return the full names among the variables with these treatments."""
    found = [name for rule in environment.RULES if rule.treatment in treatments for name in rule.names.split()]
    return [name for name in found if not name.endswith("*")]


def table() -> str:
    """Return the table of the list, as docs/environment.md has it."""
    rows = []
    for rule in environment.RULES:
        names = ", ".join(f"`{name}`" for name in rule.names.split())
        treatment = LABELS.get(rule.treatment, rule.treatment) + f" to `{rule.value}`" * bool(rule.value)
        rows.append(f"| {names} | {treatment} | {rule.reason} |\n")
    return "".join(rows)


def test_the_documentation_has_the_table_of_the_list() -> None:
    assert table() in (ROOT / "docs/environment.md").read_text(encoding="utf-8")


def test_every_variable_of_mlflow_in_the_list_is_one_that_this_version_reads() -> None:
    known = {str(getattr(variable, "name", "")) for variable in vars(environment_variables).values()}
    named = {name for rule in environment.RULES for name in rule.names.split() if "MLFLOW_" in name and "*" not in name}
    assert named and named <= known


def test_every_other_name_of_ours_is_used_somewhere() -> None:
    for name in environment.OTHERS.split():
        command = ["git", "grep", "--quiet", f"ONTIME_{name}", "--", "on-time", ".ci", "ops", "tests"]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0, name


def test_what_is_removed_and_set_holds_for_a_process_and_its_children() -> None:
    odd = dict.fromkeys([*_names("removed", "set"), "MLFLOW_HTTP_REQUEST_TIMEOUT"], "odd")
    odd |= {"MLFLOW_TRACKING_TOKEN": "", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "example.com"}
    odd |= {"PYTHONOPTIMIZE": "1", "PYTHONWARNINGS": "error", "PYTHONINSPECT": ""}
    shown = json.loads(_python(f"import app; {SHOW}", **odd).stdout)
    assert not set(_names("removed")) & set(shown)
    assert (shown["OMP_WAIT_POLICY"], shown["MLFLOW_ENABLE_ASYNC_LOGGING"]) == ("passive", "false")
    assert shown["NO_PROXY"] == shown["no_proxy"] == "example.com,127.0.0.1,localhost,::1"
    assert shown["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "odd" and "MLFLOW_TRACKING_TOKEN" not in shown


def test_the_scripts_remove_what_python_and_git_read_before_our_code_runs(tmp_path: Path) -> None:
    python = dict.fromkeys(("PYTHONHOME", "PYTHONHASHSEED", "PYTHONIOENCODING", "PYTHONWARNINGS"), "odd")
    python |= dict.fromkeys(("PYTHONSAFEPATH", "PYTHONOPTIMIZE", "PYTHONDONTWRITEBYTECODE", "PYTHONINSPECT"), "1")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    odd = python | {"PYTHONPATH": str(tmp_path)} | dict.fromkeys(_names("launcher"), "1")
    odd |= {name: "odd" for name in _names("removed") if name.startswith("GIT_")}
    command = [ROOT / "ops/ci/run", sys.executable, "-c", f"import sys; assert sys.flags.utf8_mode; {SHOW}"]
    done = subprocess.run(command, env=os.environ | odd, capture_output=True, text=True, check=True)
    shown = json.loads(done.stdout)
    assert {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PYTHONUTF8": "1"}.items() <= shown.items()
    assert not (set(odd) - {"PIP_USER", "PIP_REQUIRE_VIRTUALENV"}) & set(shown)


def test_another_registry_is_refused_and_the_same_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "https://user:secret@registry")
    with pytest.raises(EnvironmentInvalid, match="unset MLFLOW_REGISTRY_URI") as refused:
        environment.check()
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://user:secret@registry")
    environment.check()


@pytest.mark.parametrize(
    ("name", "value"), [("MLFLOW_ENABLE_MULTIPART_UPLOAD", "maybe"), ("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon")]
)
def test_a_value_that_mlflow_cannot_read_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment.check_mlflow()
    monkeypatch.setenv(name, value)
    with pytest.raises(EnvironmentInvalid, match=f"unset {name}"):
        environment.check_mlflow()


@pytest.mark.parametrize("settings", CLASSES)
def test_an_empty_variable_is_not_set(settings: type[Inherited], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, field in settings.model_fields.items():
        variable = str(field.validation_alias or f"{settings.model_config['env_prefix']}{name.upper()}")
        monkeypatch.setenv(variable, "")
    assert settings.read() == settings.model_construct()


@pytest.mark.parametrize(
    ("settings", "name", "meant"),
    [
        (Settings, "ONTIME_API_KEYZ", "ONTIME_API_KEYS"),
        (DriftSettings, "ONTIME_DRIFT_MINUTE", "ONTIME_DRIFT_MINUTES"),
        (ReceiverSettings, "ONTIME_RECEIVER_TOKENFILE", "ONTIME_RECEIVER_TOKEN_FILE"),
        (RetrainSettings, "ONTIME_RETRAIN_REPOSITRY", "ONTIME_RETRAIN_REPOSITORY"),
    ],
)
def test_a_misspelled_setting_is_refused_with_the_right_name(
    settings: type[Inherited], name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(EnvironmentInvalid, match=f"{name} .* is {meant} meant"):
        settings.read()


def test_a_setting_of_another_version_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ONTIME_SERVICE_HOST", "10.0.0.1")  # as Kubernetes sets it for a Service named `ontime`
    monkeypatch.setenv("ONTIME_DRIFT_PORT", "1")  # of another class
    Settings.read()
    assert [record.args for record in caplog.records] == [("ONTIME_SERVICE_HOST",)]


def test_the_monitor_refuses_what_is_no_journal_and_kubernetes_links_are_explained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONTIME_JOURNAL_URL", "none")
    assert Settings.read().journal_url == ""
    with pytest.raises(EnvironmentInvalid, match="ONTIME_JOURNAL_URL"):
        DriftSettings.read()
    monkeypatch.setenv("ONTIME_PORT", "tcp://10.0.0.1:8000")
    with pytest.raises(EnvironmentInvalid, match="ONTIME_PORT: .*enableServiceLinks: false"):
        Settings.read()


def _spins(code: str, **variables: str) -> set[str]:
    """Return how often the OpenMP runtimes of a process spin before they sleep, as they report it themselves."""
    shown = _python(f"{code}; {LOADED}", OMP_DISPLAY_ENV="verbose", **variables).stderr
    return set(re.findall(r"GOMP_SPINCOUNT = '(\d+)'", shown))


@pytest.mark.parametrize("package", ["app", "stages", "ops", "tests.conftest"])
def test_openmp_waits_without_spinning_whatever_is_inherited(package: str) -> None:
    assert _spins(f"import {package}", OMP_WAIT_POLICY="active", GOMP_SPINCOUNT="100") == {"0"}


def test_openmp_spins_without_the_setting() -> None:
    assert "0" not in _spins("import os", OMP_WAIT_POLICY="active")


@pytest.mark.parametrize("package", ["stages", "ops.gate"])
def test_a_wrong_time_zone_database_of_the_system_changes_nothing(package: str, tmp_path: Path) -> None:
    tokyo = importlib.resources.files("tzdata") / "zoneinfo" / "Asia" / "Tokyo"
    (tmp_path / "America").mkdir()
    (tmp_path / "America" / "New_York").write_bytes(tokyo.read_bytes())
    assert _python(NOON, PYTHONTZPATH=str(tmp_path)).stdout == "9:00:00\n"
    assert _python(f"import {package}; {NOON}", PYTHONTZPATH=str(tmp_path)).stdout == "-1 day, 20:00:00\n"


def test_output_that_cannot_be_written_is_an_error_in_one_line() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "ops.cli", "data", "--help"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        f"error: No space left on device: the output, or a file below {ROOT}. Free some space"
    )
