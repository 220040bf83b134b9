"""Base classes of the request schemas of the core and of the problem."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """A part of a request: unknown fields, NaN and infinities are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Reported(Strict):
    """A reported outcome; the problem adds its fields and the property `positive`."""

    prediction_id: str = Field(description="The `prediction_id` of the prediction.", pattern="^[0-9a-f]{32}$")

    @property
    def positive(self) -> bool:
        """Whether the predicted event happened; the problem defines it."""
        raise NotImplementedError
