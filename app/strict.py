"""The base of every request schema, the core's and the problem's."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """A part of a request: unknown fields, NaN and infinities are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Reported(Strict):
    """An outcome that a client reports; the problem adds what happened, and `positive`."""

    prediction_id: str = Field(description="Id of the prediction, from its answer.", pattern="^[0-9a-f]{32}$")

    @property
    def positive(self) -> bool:
        """Whether the predicted event happened; the problem defines it."""
        raise NotImplementedError
