"""The served model: a registered version, or a copy of one, loaded and verified."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, Field

from app.interface import NAME
from app.model.bundle import Bundle


class ModelVersion(BaseModel):
    """The version that made a prediction."""

    name: str = Field(description="Name in the registry.", examples=[NAME])
    version: str = Field(description="Version in the registry.", examples=["1"])


@dataclass(frozen=True)
class ServedModel:
    """A served version, immutable: a request reads `app.state.served` once, and a hot swap replaces the object."""

    name: str
    version: str
    alias: str
    run_id: str | None
    bundle: Bundle
    source: Literal["registry", "baked"] = "registry"
    created: float | None = None
    """When the version was registered, in seconds since 1970."""
    loaded: float = field(default_factory=time.time)

    @property
    def label(self) -> ModelVersion:
        """Return name and version, as in responses."""
        return ModelVersion(name=self.name, version=self.version)

    def headers(self, length: int) -> list[tuple[bytes, bytes]]:
        """Return the headers of a response with predictions of this model."""
        return [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % length),
            (b"x-model-version", self.version.encode()),
        ]

    @cached_property
    def json_tail(self) -> str:
        """Return the part of a prediction's JSON that is constant for the model."""
        model = json.dumps({"name": self.name, "version": self.version}, separators=(",", ":"))
        return f',"threshold":{self.bundle.threshold!r},"model":{model}}}'
