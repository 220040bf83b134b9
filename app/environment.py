"""The inherited environment: which variables change what a process does, and what is done about each of them.

Importing `app` calls `settle`, before LightGBM, MLflow and Prometheus' client read their variables. Python's own are
read before any code runs: ops/ci/environment.sh removes them. docs/environment.md has the same table; a test compares.
"""

from __future__ import annotations

import difflib
import os
import warnings
from collections.abc import Iterable
from typing import NamedTuple

from app.errors import OnTimeError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PREFIX = "ONTIME_"
EMPTY_IS_UNSET = (PREFIX, "MLFLOW_", "OMP_", "GOMP_", "PROMETHEUS_", "AWS_")


class Rule(NamedTuple):
    """What is done about some variables; a name that ends in * is a prefix."""

    names: str
    treatment: str
    """`honoured`, `set`, `extended`, `removed`, `launcher` (removed by ops/ci/environment.sh) or `refused`."""
    reason: str
    value: str = ""
    """The value that is set."""

    def __contains__(self, name: object) -> bool:
        return any(str(name).startswith(n[:-1]) if n.endswith("*") else name == n for n in self.names.split())


RULES = (
    Rule("MLFLOW_REGISTRY_URI", "refused", "MLflow cannot register a logged model in the registry of another store"),
    Rule("MLFLOW_RUN_ID", "removed", "a stage would continue a run that is not its own"),
    Rule("MLFLOW_EXPERIMENT_ID MLFLOW_EXPERIMENT_NAME", "removed", "the experiment has the name of the model"),
    Rule("MLFLOW_ACTIVE_MODEL_ID _MLFLOW_ACTIVE_MODEL_ID", "removed", "metrics would be linked to another model"),
    Rule("MLFLOW_RUN_CONTEXT", "removed", "runs would get the tags of another one"),
    Rule("MLFLOW_CONFIGURE_LOGGING", "removed", "logging is configured here"),
    Rule("MLFLOW_LOCK_MODEL_DEPENDENCIES MLFLOW_LOG_MODEL_COMPRESSION", "removed", "a bundle has its fixed form"),
    Rule("MLFLOW_ENABLE_ASYNC_LOGGING", "set", "a stage ends when everything is logged", "false"),
    Rule("MLFLOW_*", "honoured", "an invalid number or truth value is an error that names the variable"),
    Rule("AWS_*", "honoured", "artifacts and data in S3"),
    Rule("DVC_*", "honoured", "configuration, cache and remote of DVC"),
    Rule("RAY_*", "honoured", "`RAY_ADDRESS` is the cluster of the engine `ray`, the others are settings of Ray"),
    Rule("OMP_WAIT_POLICY", "set", "threads that spin make two trainings take an hour instead of minutes", "passive"),
    Rule("GOMP_SPINCOUNT", "removed", "it overrides OMP_WAIT_POLICY"),
    Rule("OMP_* GOMP_* KMP_*", "honoured", "the number of threads does not change the model; invalid: ignored"),
    Rule("PROMETHEUS_MULTIPROC_DIR prometheus_multiproc_dir", "removed", "each service makes a folder for its workers"),
    Rule("PROMETHEUS_*", "honoured", "form of the metrics"),
    Rule("WEB_CONCURRENCY", "removed", "`ONTIME_WORKERS` sets the number of workers of the service alone"),
    Rule("FORWARDED_ALLOW_IPS", "honoured", "addresses of proxies whose `X-Forwarded` headers are trusted"),
    Rule("UVICORN_*", "honoured", "no effect: read by uvicorn's command line, which is not used"),
    Rule("NO_PROXY no_proxy", "extended", "services on this machine are reached without a proxy"),
    Rule("HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy", "honoured", "other machines"),
    Rule("PYTHONOPTIMIZE PYTHONINSPECT", "removed", "LightGBM's import fails without docstrings; scripts end"),
    Rule("PYTHONWARNINGS", "removed", "a warning of a library is not an error"),
    Rule("PYTHON*", "launcher", "packages and behaviour are those of .venv; encoding and paths are UTF-8"),
    Rule("PYTHON", "honoured", "the interpreter that .venv is made with"),
    Rule("GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_PREFIX GIT_COMMON_DIR GIT_NAMESPACE", "removed", "set in git hooks"),
    Rule("GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES", "removed", "set while a push is received"),
    Rule("CDPATH", "launcher", "`cd` would enter another checkout"),
    Rule(
        "PIP_USER PIP_REQUIRE_VIRTUALENV PIP_TARGET PIP_PREFIX PIP_CONSTRAINT", "launcher", "the locked uv is installed"
    ),
    Rule(
        "UV_EXCLUDE_NEWER UV_CONSTRAINT UV_OVERRIDE UV_SYSTEM_PYTHON", "launcher", "the locked packages are installed"
    ),
    Rule("PIP_* UV_* SSL_CERT_FILE", "honoured", "index, certificate and cache; uv gets those of pip"),
    Rule("VIRTUAL_ENV CONDA_PREFIX", "honoured", "no effect: .venv is first in PATH"),
    Rule("TZ LANG LC_ALL TMPDIR HOME NO_COLOR TERM", "honoured", "no effect on the model, and none is required"),
    Rule(
        "MAKEFLAGS MAKELEVEL BASE HOST PORT REASON VERSION",
        "honoured",
        "no effect: make takes them from its command line",
    ),
    Rule("ONTIME_*", "honoured", "settings; a name that resembles one is an error, any other unknown name a warning"),
)

OTHERS = "ACTIONS API_KEY CALLER_DIR DOCKER_UP IMAGE LISTEN SECRETS SITE TOOLS_IMAGE"
"""Variables ONTIME_<NAME> besides the settings classes: of the tests, the commands and Docker Compose."""
CLASSES = ("ONTIME_DRIFT_", "ONTIME_RECEIVER_", "ONTIME_RETRAIN_")
"""Prefixes of the settings of ops, each checked by its own class."""


class EnvironmentInvalid(OnTimeError):
    """A variable that is set cannot be honoured."""

    exit_code = 2


def rule(name: str) -> Rule | None:
    """Return the rule of a variable, if there is one: the first that applies."""
    return next((one for one in RULES if name in one), None)


def settle() -> None:
    """Apply the rules `set` and `removed` to this process, and so to those that it starts."""
    if os.environ.get("PYTHONWARNINGS"):
        warnings.filters = [one for one in warnings.filters if one[0] != "error"]
    for name, value in list(os.environ.items()):
        found = rule(name)
        if (found and found.treatment == "removed") or (not value and name.startswith(EMPTY_IS_UNSET)):
            del os.environ[name]
    os.environ |= {r.names: r.value for r in RULES if r.treatment == "set"}
    if any(value and name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name, value in os.environ.items()):
        known = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(",")
        value = ",".join(filter(None, [*known, *(name for name in LOOPBACK if name not in known)]))
        os.environ |= {"no_proxy": value, "NO_PROXY": value}


def check() -> None:
    """Raise EnvironmentInvalid if a variable is set that is refused."""
    registry, store = os.environ.get("MLFLOW_REGISTRY_URI"), os.environ.get("MLFLOW_TRACKING_URI")
    if registry and registry != store:
        raise EnvironmentInvalid(
            "MLFLOW_REGISTRY_URI names another store than MLFLOW_TRACKING_URI, but runs and registry must be in one: "
            "`unset MLFLOW_REGISTRY_URI`, or set MLFLOW_TRACKING_URI to the same."
        )


def check_mlflow() -> None:
    """Raise EnvironmentInvalid if a variable of MLflow has a value that MLflow cannot read."""
    from mlflow import environment_variables as known  # pylint: disable=import-outside-toplevel # takes seconds

    for variable in vars(known).values():
        if isinstance(name := getattr(variable, "name", None), str) and name in os.environ:
            try:
                variable.get()
            except ValueError as err:
                raise EnvironmentInvalid(f"{err}. `unset {name}`, or correct it.") from err


def unknown(prefix: str, fields: Iterable[str]) -> list[str]:
    """Return the set variables with a prefix that are none of these settings; raise EnvironmentInvalid for a typo.

    A name that resembles no setting is not refused: an older version may be started with the settings of a newer one,
    and Kubernetes adds variables for each service.
    """
    own = [name.upper() for name in fields]
    known = {prefix + name for name in own} | {PREFIX + name for name in OTHERS.split()}
    found = []
    for name in sorted(os.environ):
        if name in known or not name.startswith(prefix) or any(name.startswith(c) and c != prefix for c in CLASSES):
            continue
        if near := difflib.get_close_matches(name.removeprefix(prefix), own, 1, 0.8):
            raise EnvironmentInvalid(f"{name} is no setting; is {prefix}{near[0]} meant? `unset {name}` otherwise.")
        found.append(name)
    return found
