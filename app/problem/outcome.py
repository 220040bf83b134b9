"""The outcome of a predicted flight."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from app.problem_kit.models import Reported

LATE_MINUTES = 15
"""Least arrival delay of a late flight, minutes (US Department of Transportation)."""

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
    """Reject booleans and strings, which Pydantic would convert to integers; 22.0 is accepted."""
    if isinstance(value, bool | str):
        raise ValueError("must be a whole number")
    return value


class Arrival(Reported):
    """The outcome of a predicted flight."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE], **ARRIVED_HAS_DELAY})

    status: Literal["arrived", "cancelled", "diverted"] = "arrived"
    delay_minutes: Annotated[int | None, BeforeValidator(_number)] = Field(
        default=None,
        ge=-1440,
        le=10080,
        description="Arrival delay, minutes, negative if early; required if the flight arrived, else not allowed.",
    )

    @model_validator(mode="after")
    def _delay_fits(self) -> Self:
        if (self.status == "arrived") != (self.delay_minutes is not None):
            raise ValueError("delay_minutes is required if status is arrived, and not allowed otherwise")
        return self

    @property
    def positive(self) -> bool:
        """Whether the flight was late, cancelled or diverted."""
        return self.delay_minutes is None or self.delay_minutes >= LATE_MINUTES
