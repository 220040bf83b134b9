"""The service's settings, read from the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"

MLFLOW_CLIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Variables of MLflow's client, where the environment does not set them: fail soon, stay quiet."""


class Settings(BaseSettings):
    """Settings of the service, each from the variable ONTIME_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="ONTIME_", frozen=True)

    host: str = "127.0.0.1"
    """Address to listen on."""

    port: int = Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 takes any free one."""

    model_name: str = "flight-delay"
    """Name of the model in the registry."""

    model_alias: str = "production"
    """Alias of the version that is served."""

    tracking_uri: str = Field(default="", validation_alias="MLFLOW_TRACKING_URI")
    """MLflow's address; the variable is MLflow's own. Without it, `registry_uri` says which is asked."""

    baked_model: Path | None = None
    """Folder with a copy of a registered version, served until the registry answers, or where there is none."""

    log_level: str = "info"
    """Level of uvicorn's log."""

    @property
    def registry_uri(self) -> str:
        """Where the alias is looked up; empty when the baked copy is all there is."""
        return self.tracking_uri or ("" if self.baked_model else DEFAULT_TRACKING_URI)
