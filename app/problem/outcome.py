"""The outcome: how a predicted flight arrived, or that it did not."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from app.strict import Reported

LATE_MINUTES = 15
"""Delay on arrival from which on a flight is not on time (US Department of Transportation)."""

EXAMPLE: dict[str, Any] = {
    "prediction_id": "0190b6c2f8c94e4f9d0f6f4f3d2b1a00",
    "status": "arrived",
    "delay_minutes": 22,
}
ARRIVED_HAS_DELAY: dict[str, Any] = {
    "if": {"properties": {"status": {"const": "arrived"}}},
    "then": {"required": ["delay_minutes"], "properties": {"delay_minutes": {"type": "integer"}}},
    "else": {"properties": {"delay_minutes": {"type": "null"}}},
}


def _number(value: Any) -> Any:
    """Refuse true, false and text, which would pass for whole numbers; 22.0 is one."""
    if isinstance(value, bool | str):
        raise ValueError("must be a whole number")
    return value


class Arrival(Reported):
    """What became of a flight that was predicted."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE], **ARRIVED_HAS_DELAY})

    status: Literal["arrived", "cancelled", "diverted"] = "arrived"
    delay_minutes: Annotated[int | None, BeforeValidator(_number)] = Field(
        default=None,
        ge=-1440,
        le=10080,
        description="Delay on arrival, minutes; negative when early; for a flight that arrived, and for no other.",
    )

    @model_validator(mode="after")
    def _delay_fits(self) -> Self:
        if (self.status == "arrived") != (self.delay_minutes is not None):
            raise ValueError("delay_minutes is given when status is arrived, and only then")
        return self

    @property
    def positive(self) -> bool:
        """Whether the flight was late, cancelled or diverted."""
        return self.delay_minutes is None or self.delay_minutes >= LATE_MINUTES
