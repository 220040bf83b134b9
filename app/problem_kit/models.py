"""Base classes of the request schemas of the core and of the problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NaiveDatetime, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError


def _has_time(value: Any) -> Any:
    """Reject a number, a date, which Pydantic would take for its midnight, and the hour 24."""
    text = value if isinstance(value, str) else ""
    if isinstance(value, int | float) or 0 < len(text) <= len("2024-07-01") or text[11:13] == "24":
        raise ValueError("must be a date and a time of day, for example 2024-07-01T18:15:00")
    return value


# JSON Schema's date-time requires an offset; date-time-local, of OpenAPI's format registry, has none.
LocalTime = Annotated[
    NaiveDatetime, BeforeValidator(_has_time), WithJsonSchema({"type": "string", "format": "date-time-local"})
]
"""A local clock time with a time of day, ISO 8601 without offset."""


def impossible(reasons: Mapping[str, str]) -> ValidationError:
    """Return the error of a request whose values exclude each other: a reason by field, named in the response.

    A validator of the whole request raises it: Pydantic adds the position in a batch to the fields.
    """
    details = [
        InitErrorDetails(
            type=PydanticCustomError("impossible", "{reason}", {"reason": reason}), loc=(field,), input=None
        )
        for field, reason in reasons.items()
    ]
    return ValidationError.from_exception_data("impossible", details)


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
