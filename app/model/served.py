"""The served model: a registered version, or a copy of one, loaded and verified."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.interface import NAME
from app.model.bundles import Bundle

Source = Literal["registry", "baked", "cache"]
"""Where a model is from; `baked` and `cache` only until the registry has named the same version."""


class ModelVersion(BaseModel):
    """The version that made a prediction."""

    name: str = Field(description="Name in the registry.", examples=[NAME])
    version: str = Field(description="Version in the registry.", examples=["1"])


class Production(BaseModel):
    """How a version became Production the last time."""

    model_config = ConfigDict(frozen=True)

    since: float
    """Seconds since 1970."""
    action: str
    """`promote` or `rollback`."""
    by: str
    """The user who made the decision."""
    why: str
    run_id: str
    """The MLflow run with the evidence."""
    experiment: str = ""
    """The id of its experiment, which is part of the run's address."""


@dataclass(frozen=True)
class ServedModel:  # pylint: disable=too-many-instance-attributes # each is a fact of the registry or of its copy
    """A served version, immutable: a request reads `app.state.served` once, and a hot swap replaces the object."""

    name: str
    version: str
    alias: str
    run_id: str | None
    bundle: Bundle
    source: Source = "registry"
    created: float | None = None
    """When the version was registered, in seconds since 1970."""
    production: Production | None = None
    """None unless the version was found by the alias `production`, or if the registry has no record."""
    evaluation: dict[str, Any] | None = None
    """What stage `evaluate` measured of this bundle; None if the version has been registered without it."""
    loaded: float = field(default_factory=time.time)

    @property
    def label(self) -> ModelVersion:
        """Return name and version, as in responses."""
        return ModelVersion(name=self.name, version=self.version)

    @cached_property
    def header(self) -> tuple[bytes, bytes]:
        """Return the header of a response that names the version."""
        return b"x-model-version", self.version.encode()

    @cached_property
    def constant(self) -> dict[str, Any]:
        """Return the fields of a prediction that are the same for all predictions of the model."""
        return {"threshold": self.bundle.threshold, "model": {"name": self.name, "version": self.version}}
