"""The pipeline, the gates, the service and the monitors with inherited variables set to odd values."""

from __future__ import annotations

import importlib.resources
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient

from app import environment
from tests.support.clone import Clone
from tests.support.processes import free_port, running, wait_for

ODD = {
    **dict.fromkeys(("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"), "odd"),
    **dict.fromkeys(("MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID", "MLFLOW_RUN_CONTEXT"), "odd"),
    **dict.fromkeys(("MLFLOW_CONFIGURE_LOGGING", "MLFLOW_LOG_MODEL_COMPRESSION"), "odd"),
    **dict.fromkeys(("MLFLOW_ENABLE_ASYNC_LOGGING", "MLFLOW_LOCK_MODEL_DEPENDENCIES"), "true"),
    **dict.fromkeys(("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_HTTP_REQUEST_TIMEOUT", "AWS_PROFILE"), ""),
    **{"MLFLOW_LOGGING_LEVEL": "DEBUG", "DVC_STAGE": "odd", "DVC_IGNORE_ISATTY": "1", "KMP_BLOCKTIME": "infinite"},
    **{"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "infinity", "OMP_NUM_THREADS": "odd", "OMP_STACKSIZE": "1"},
    **dict.fromkeys(("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"), "/nowhere"),
    **{"PROMETHEUS_DISABLE_CREATED_SERIES": "odd", "WEB_CONCURRENCY": "3", "UVICORN_PORT": "1"},
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9"),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "example.com"),
    **{"FORWARDED_ALLOW_IPS": "10.0.0.1", "PYTHONOPTIMIZE": "2", "PYTHONINSPECT": "1", "PYTHONWARNINGS": "error"},
    **{"PYTHONHOME": "/nowhere", "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "odd", "PYTHONIOENCODING": "ascii"},
    **{"PYTHONTZPATH": "/nowhere", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "LANG": "C", "LC_ALL": "C"},
    **dict.fromkeys(("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE"), "/nowhere"),
    **dict.fromkeys(("GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES"), "/nowhere"),
    **dict.fromkeys(("PIP_USER", "PIP_REQUIRE_VIRTUALENV", "UV_SYSTEM_PYTHON"), "1"),
    **dict.fromkeys(("PIP_TARGET", "PIP_PREFIX", "PIP_CONSTRAINT", "UV_CONSTRAINT", "UV_OVERRIDE"), "/nowhere"),
    **{"UV_EXCLUDE_NEWER": "2020-01-01", "VIRTUAL_ENV": "/nowhere", "CONDA_PREFIX": "/nowhere", "CDPATH": "/"},
    **{"TZ": "Asia/Tokyo", "TMPDIR": "/nowhere", "HOME": "/nowhere", "NO_COLOR": "1", "TERM": "dumb"},
    **{"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": "core.autocrlf", "GIT_CONFIG_VALUE_0": "true"},
    **{"GIT_CONFIG_KEY_1": "color.ui", "GIT_CONFIG_VALUE_1": "always"},
    **{"BASE": "odd", "HOST": "odd", "PORT": "odd", "VERSION": "odd", "REASON": "odd", "MAKELEVEL": "7"},
    **dict.fromkeys(("ONTIME_BAKED_MODEL", "ONTIME_JOURNAL_URL", "ONTIME_PORT", "ONTIME_DRIFT_MINUTES"), ""),
}
WITHOUT_LAUNCHER = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "OMP_NUM_THREADS": "1"}
"""Variables that reach the stages where `dvc` is started in an activated .venv."""
NOT_TRIED = {"MLFLOW_REGISTRY_URI", "ALL_PROXY", "all_proxy", "PYTHON", "SSL_CERT_FILE", "MAKEFLAGS"}
"""Variables of the list that other tests set, or whose odd value is the user's error."""


@pytest.fixture(scope="module")
def odd(small: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A copy of the small clone with this environment's programs, whose version is Production."""
    folder = tmp_path_factory.mktemp("odd") / "clone"
    shutil.copytree(small.path, folder, symlinks=True)
    Clone(folder).run("git", "clean", "--quiet", "--force", "-d")  # journals of other tests
    (folder / ".venv").symlink_to(sys.prefix)
    lib = folder.parent / "lib"
    lib.mkdir()
    for name in ("sitecustomize", "random", "app", "data", "stages"):
        (lib / f"{name}.py").write_text("raise SystemExit('imported from PYTHONPATH')", encoding="utf-8")
    MlflowClient(f"sqlite:///{folder}/mlflow.db").set_registered_model_alias("flight-delay", "production", "1")
    yield Clone(folder)


def _odd(clone: Clone) -> dict[str, str]:
    return ODD | {"PYTHONPATH": str(clone.path.parent / "lib")}


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.rpartition("error: ")[2].partition("The evidence")[0]


def test_every_variable_of_the_list_is_tried() -> None:
    names = {name for rule in environment.RULES for name in rule.names.split() if not name.endswith("*")}
    assert names - set(ODD) <= NOT_TRIED


def test_a_refused_variable_ends_a_command_with_its_name(small: Clone) -> None:
    command = ("python", "-m", "ops.cli", "model", "gate", "--base", "HEAD")
    done = small.run(*command, check=False, MLFLOW_REGISTRY_URI="sqlite:///other.db")
    assert (
        done.returncode == 2 and done.stderr.startswith("error: MLFLOW_REGISTRY_URI") and done.stderr.count("\n") == 1
    )
    stage = small.run("python", "-m", "stages.register", check=False, MLFLOW_REGISTRY_URI="sqlite:///other.db")
    assert stage.returncode == 2 and stage.stderr == done.stderr
    assert not (small.path / "other.db").exists()


def _wrong_time_zones(folder: Path) -> str:
    """Make a time zone database in which it is as late in all of America as in Tokyo."""
    zones = importlib.resources.files("tzdata") / "zoneinfo"
    (folder / "America").mkdir(parents=True)
    for zone in (zones / "America").iterdir():
        if zone.is_file():
            (folder / "America" / zone.name).write_bytes((zones / "Asia" / "Tokyo").read_bytes())
    return str(folder)


@pytest.mark.long
def test_the_pipeline_gives_the_same_outputs(odd: Clone, tmp_path: Path) -> None:
    inner = WITHOUT_LAUNCHER | {"PYTHONTZPATH": _wrong_time_zones(tmp_path / "zones")}
    command = ("ops/ci/run", "env", *(f"{name}={value}" for name, value in inner.items()), "dvc", "repro", "--force")
    odd.run("sh", "-c", 'umask 077; exec "$@"', "sh", *command, **_odd(odd))
    assert odd.git_status() == ""
    shown = odd.run("make", "repro", **_odd(odd)).stdout
    assert "Version 1 of flight-delay is Staging and Production in sqlite:///mlflow.db" in shown


@pytest.mark.long
def test_the_gates_decide_the_same(odd: Clone) -> None:
    client = MlflowClient(f"sqlite:///{odd.path}/mlflow.db")
    client.delete_registered_model_alias("flight-delay", "production")
    try:
        for command, text in ((("promote",), "is refused by the floors"), (("gate", "--base", "HEAD"), "gate refuses")):
            plain = odd.run("python", "-m", "ops.cli", "model", *command, check=False)
            done = odd.run("./on-time", "model", *command, check=False, **_odd(odd))
            assert done.returncode == plain.returncode != 0 and text in done.stderr, done.stderr
            assert _reason(done) == _reason(plain)
    finally:
        client.set_registered_model_alias("flight-delay", "production", "1")


@pytest.mark.long
def test_the_service_answers_and_keeps_its_metrics_to_itself(odd: Clone) -> None:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = [odd.path / "on-time", "model", "serve", "--port", str(port)]
    with running(command, f"{base}/readyz", odd.path, **_odd(odd)):
        assert httpx.get(f"{base}/version").json()["model"]["version"] == "1"
        assert "model_info{" in httpx.get(f"{base}/metrics").text
    assert (odd.path / "journal.db").exists()


@pytest.mark.long
def test_the_monitors_run(odd: Clone) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    command = [odd.path / "on-time", "monitor", "drift"]
    with running(command, url, odd.path, **_odd(odd), ONTIME_DRIFT_PORT=str(port), ONTIME_DRIFT_REGISTRY_SECONDS="1"):
        wait_for("the monitor has read the registry", lambda: 'alias="production"' in httpx.get(url).text)
    receiver = [odd.path / "on-time", "monitor", "receiver"]
    with running(receiver, f"http://127.0.0.1:{port}/livez", odd.path, **_odd(odd), ONTIME_RECEIVER_PORT=str(port)):
        pass
