"""What is done about inherited variables; docs/environment.md lists them all, with the reasons.

The programs call `apply` before they load LightGBM, MLflow or Prometheus' client: `app.__main__`, `ops.cli` and
`stages.base.errors.run`. What a library reads while a stage's module loads it, ops/ci/environment.sh sets and removes.
"""

from __future__ import annotations

import os

from app.errors import OnTimeError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
EMPTY_IS_UNSET = ("ONTIME_", "MLFLOW_", "OMP_", "GOMP_", "PROMETHEUS_", "AWS_")
SET = {"MLFLOW_ENABLE_ASYNC_LOGGING": "false", "OMP_WAIT_POLICY": "passive"}
REMOVED = frozenset(
    "MLFLOW_RUN_ID MLFLOW_EXPERIMENT_ID MLFLOW_EXPERIMENT_NAME MLFLOW_ACTIVE_MODEL_ID _MLFLOW_ACTIVE_MODEL_ID "
    "MLFLOW_RUN_CONTEXT MLFLOW_CONFIGURE_LOGGING MLFLOW_LOCK_MODEL_DEPENDENCIES MLFLOW_LOG_MODEL_COMPRESSION "
    "GOMP_SPINCOUNT PROMETHEUS_MULTIPROC_DIR prometheus_multiproc_dir WEB_CONCURRENCY "
    "PYTHONOPTIMIZE PYTHONINSPECT PYTHONWARNINGS "
    "GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_PREFIX GIT_COMMON_DIR GIT_NAMESPACE "
    "GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES".split()
)


class EnvironmentInvalid(OnTimeError):
    """A variable that is set cannot be honoured."""

    exit_code = 2


def apply() -> None:
    """Set and remove variables of this process, and so of those that it starts; raise for one that is refused."""
    for name, value in list(os.environ.items()):
        if name in REMOVED or (not value and name.startswith(EMPTY_IS_UNSET)):
            del os.environ[name]
    os.environ |= SET
    if any(value and name.lower() in PROXIES for name, value in os.environ.items()):
        direct = [name for name in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(",") if name]
        hosts = ",".join([*direct, *(name for name in LOOPBACK if name not in direct)])
        os.environ |= {"no_proxy": hosts, "NO_PROXY": hosts}
    check()


def check() -> None:
    """Raise EnvironmentInvalid if a variable is set that is refused."""
    registry, store = os.environ.get("MLFLOW_REGISTRY_URI"), os.environ.get("MLFLOW_TRACKING_URI")
    if registry and registry != store:
        raise EnvironmentInvalid(
            "MLFLOW_REGISTRY_URI names another store than MLFLOW_TRACKING_URI, but runs and registry must be in one: "
            "`unset MLFLOW_REGISTRY_URI`, or set MLFLOW_TRACKING_URI to the same."
        )
