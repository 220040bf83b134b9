"""The service's settings, read from the environment."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.addresses import sqlite_file
from app.environment import EnvironmentInvalid, check
from app.interface import NAME

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"

WORKERS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Variable of prometheus_client: the folder where workers share their values; each worker exports all of them."""

MLFLOW_CLIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Defaults for MLflow's client: short timeouts, no progress bars, no telemetry, and no addresses of runs on standard
output, which have the password if the server's has one. The environment overrides them."""


JOURNAL = r"^(sqlite|postgresql)(\+\w+)?://"
"""Pattern of a journal's address."""


PREFIX = "ONTIME_"
OTHERS = "ACTIONS API_KEY CALLER_DIR DOCKER_UP IMAGE LISTEN SECRETS SITE TOOLS_IMAGE"
"""Variables ONTIME_<NAME> besides the settings classes: of the tests, the commands and Docker Compose."""
CLASSES = ("ONTIME_DRIFT_", "ONTIME_RECEIVER_", "ONTIME_RETRAIN_")
"""Prefixes of the settings of ops, each checked by its own class."""


class Inherited(BaseSettings):
    """Settings from the environment; an empty variable is not set."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True)

    @classmethod
    def read(cls) -> Self:
        """Return the settings; raise EnvironmentInvalid for an invalid value and for a name that is a typo.

        Other unknown names are logged.
        """
        check()
        prefix = cls.model_config["env_prefix"]
        try:
            settings = cls()
        except ValidationError as err:
            wrong = "; ".join(f"{_variable(prefix, e['loc'])}: {e['msg']}" for e in err.errors())
            if "tcp://" in str(err):
                wrong += ". Kubernetes sets it for a Service of that name: `enableServiceLinks: false`"
            raise EnvironmentInvalid(f"invalid setting in the environment: {wrong}.") from err
        own = [name for name, field in cls.model_fields.items() if not field.validation_alias]
        for name in unknown(prefix, own):
            logging.getLogger("app").warning("%s is not a setting of this version and has no effect", name)
        return settings


def _variable(prefix: str, location: tuple[int | str, ...]) -> str:
    name = ".".join(map(str, location))
    return name if name.isupper() else prefix + name.upper()


def unknown(prefix: str, fields: Iterable[str]) -> list[str]:
    """Return the set variables with a prefix that are none of these settings; raise EnvironmentInvalid for a typo.

    A name that resembles no setting is not refused: an older version may be started with the settings of a newer one,
    and Kubernetes adds variables for each service.
    """
    own = [name.upper() for name in fields]
    known = {prefix + name for name in own} | {PREFIX + name for name in OTHERS.split()}
    foreign = tuple(other for other in CLASSES if other != prefix)
    names = []
    for name in sorted(os.environ):
        if not name.startswith(prefix) or name.startswith(foreign) or name in known:
            continue
        near = difflib.get_close_matches(name.removeprefix(prefix), own, 1, 0.8)
        if near:
            raise EnvironmentInvalid(f"{name} is not a setting; is {prefix}{near[0]} meant? `unset {name}` otherwise.")
        names.append(name)
    return names


class Settings(Inherited):
    """Settings of the service, each from the variable ONTIME_<NAME>."""

    host: str = "127.0.0.1"
    """Address to listen on, IPv4 or IPv6; :: is every address of both."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""

    root_path: str = Field(default="", pattern=r"^(/[\w.~-]+)*$")
    """Path prefix under which a proxy exposes the service, for example /risk; whether it strips it does not matter."""

    workers: int = Field(default=1, ge=1, le=64)
    """Worker processes; each loads its own copy of the model."""

    model_name: str = NAME
    """Name of the model in the registry."""

    model_alias: str = "production"
    """Alias of the version that is served."""

    tracking_uri: str = Field(default="", validation_alias="MLFLOW_TRACKING_URI")
    """MLflow's address, in its own variable. If empty: sqlite:///mlflow.db, or no registry with `baked_model`."""

    baked_model: Path | None = None
    """Folder with a copy of a registered version, served while no registry is configured or reachable."""

    model_cache: Annotated[Path | None, BeforeValidator(lambda value: None if value == "none" else value)] = Path(
        "build/served"
    )
    """Folder that keeps the registry's version, verified, to serve it at the next start; `none` keeps nothing."""

    refresh_seconds: float = Field(default=30, ge=0)
    """Seconds between polls of the alias; 0 turns polling off once a model is served."""

    journal_url: str = "sqlite:///journal.db"
    """Database of predictions and outcomes; `none` disables the journal."""

    journal_queue: int = Field(default=30_000, ge=1)
    """Capacity of the write queue, in predictions; further ones are dropped and counted."""

    journal_retention_days: int = Field(default=90, ge=1)
    """Days after which journal rows are deleted."""

    api_keys: Annotated[tuple[str, ...], NoDecode] = ()
    """SHA-256 of each accepted X-API-Key (`printf %s KEY | sha256sum`), by commas; empty: no authentication."""

    max_in_progress: int = Field(default=512, ge=1)
    """Maximum number of concurrent requests; further ones get 503 with Retry-After."""

    request_seconds: float = Field(default=2, gt=0)
    """Time limit of a request in seconds, including reading its body; then it gets 504."""

    drain_seconds: float = Field(default=5, ge=0)
    """Seconds for which /readyz returns 503 after SIGTERM before the server stops."""

    docs: bool = True
    """Whether the page at /, /docs and /openapi.json are served."""

    mlflow_url: str = Field(default="", pattern=r"^(https?://.*)?$")
    """Address of MLflow's UI for browsers; the page links to it, and to the runs of the served version."""

    grafana_url: str = Field(default="", pattern=r"^(https?://.*)?$")
    """Address of Grafana for browsers; the page links to it."""

    commit: str | None = None
    """Git commit of the code, shown by /version."""

    log_level: str = Field(default="info", pattern="^(debug|info|warning|error|critical)$")
    """Log level."""

    @property
    def registry_uri(self) -> str:
        """The registry whose alias is polled; empty if only the baked model is served."""
        return self.tracking_uri or ("" if self.baked_model else DEFAULT_TRACKING_URI)

    @field_validator("journal_url")
    @classmethod
    def _database(cls, value: str) -> str:
        if value in ("", "none"):
            return ""
        if not re.match(JOURNAL, value):
            raise ValueError("must be sqlite:///file.db or postgresql://user@host/database, or none")
        if value.startswith("sqlite") and sqlite_file(value) is None:
            raise ValueError("must name a file, sqlite:///file.db: a journal in memory is lost with the process")
        return value

    @field_validator("api_keys", mode="before")
    @classmethod
    def _digests(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        digests = tuple(digest.strip().lower() for digest in value.split(",") if digest.strip())
        if not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests):
            raise ValueError("each must be the SHA-256 of a key, 64 hex digits: `printf %s KEY | sha256sum`")
        return digests
