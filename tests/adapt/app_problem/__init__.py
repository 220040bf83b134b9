"""Busy hours of a bicycle rental, as the service needs them: request and outcome, features, lookups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple, Self

import numpy as np
from pydantic import ConfigDict, Field, field_validator

from app.problem_kit.features import Feature, Floats, Ints
from app.problem_kit.models import LocalTime, Reported, Strict

BUSY = 250
"""Bicycles rented in an hour from which on it is busy."""

NAME = "busy-hours"
TITLE = "Busy hours"
ROWS_NOUN = "hours"
POSITIVE = f"busy: {BUSY} or more bicycles rented in the hour"
DESCRIPTION = f"The probability that an hour of a bicycle rental will be {POSITIVE}."

EXAMPLE: dict[str, Any] = {
    "time": "2011-10-05T17:00:00",
    "holiday": False,
    "sky": "clear",
    "temperature_c": 22.5,
    "feels_like_c": 25.1,
    "humidity_pct": 46,
    "wind_kmh": 15.0,
}
OUTCOME_EXAMPLE: dict[str, Any] = {"prediction_id": "0190b6c2f8c94e4f9d0f6f4f3d2b1a00", "bikers": 431}


def _weather(description: str, lowest: float, highest: float) -> Any:
    return Field(default=None, description=description, ge=lowest, le=highest, strict=True)


class Request(Strict):
    """An hour of the rental; weather that is not known is left out or null."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    time: LocalTime = Field(description="Start of the hour, local clock time, ISO 8601 without offset.")
    holiday: bool = Field(default=False, description="Whether it is a public holiday.", strict=True)
    sky: str | None = Field(default=None, description="clear or cloudy/misty, for instance.", max_length=40)
    temperature_c: float | None = _weather("Air temperature, degrees Celsius.", -50, 60)
    feels_like_c: float | None = _weather("Apparent temperature, degrees Celsius.", -70, 80)
    humidity_pct: float | None = _weather("Relative humidity, percent.", 0, 100)
    wind_kmh: float | None = _weather("Wind speed, kilometres per hour.", 0, 300)

    @field_validator("time")
    @classmethod
    def _whole_hour(cls, time: datetime) -> datetime:
        if (time.minute, time.second, time.microsecond) != (0, 0, 0):
            raise ValueError("must be the start of an hour")
        return time


class Outcome(Reported):
    """What was counted in an hour that was predicted."""

    model_config = ConfigDict(json_schema_extra={"examples": [OUTCOME_EXAMPLE]})

    bikers: int = Field(description="Bicycles rented in the hour.", ge=0, le=100_000, strict=True)

    @property
    def positive(self) -> bool:
        """Whether the hour was busy."""
        return self.bikers >= BUSY


WEATHER = ("temperature_c", "feels_like_c", "humidity_pct", "wind_kmh")
FEATURES = (
    Feature("sky", "category", group="weather", text="Clear, cloudy, rain or snow."),
    Feature("hour", unit="h", text="Hour of the day, local time."),
    Feature("day_of_week", text="0 is Monday."),
    Feature("free_day", text="1 on weekends and public holidays."),
    Feature("temperature_c", unit="°C", group="weather", text="Air temperature."),
    Feature("feels_like_c", unit="°C", group="weather", text="Apparent temperature."),
    Feature("humidity_pct", unit="%", group="weather", text="Relative humidity."),
    Feature("wind_kmh", unit="km/h", group="weather", text="Wind speed."),
)


class Hours(NamedTuple):
    """Hours as columns: `time` in hours since 1970-01-01 by local clocks; `weather` (n, 4) as `WEATHER`, may be NaN."""

    time: Ints
    holiday: Sequence[bool]
    sky: Sequence[str | None]
    weather: Floats


@dataclass(frozen=True)
class Lookups:
    """What the formulas need besides the request: the known words of each category."""

    vocabularies: dict[str, list[str]]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Build the lookups from their JSON form."""
        return cls(**data)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form of the lookups."""
        return asdict(self)


def arrays_of_requests(requests: Sequence[Request]) -> Hours:
    """Return requests as arrays."""
    return Hours(
        time=np.array([(r.time - datetime(1970, 1, 1)) // timedelta(hours=1) for r in requests], dtype=np.int64),
        holiday=[r.holiday for r in requests],
        sky=[r.sky for r in requests],
        weather=np.array([attrgetter(*WEATHER)(r) for r in requests], dtype=np.float64).reshape(-1, len(WEATHER)),
    )


def compute(hours: Hours, lookups: Lookups) -> Floats:
    """Return the features, shape (n, 8), columns as in `FEATURES`, NaN where one is missing."""
    code: dict[str | None, int] = {word: i for i, word in enumerate(lookups.vocabularies["sky"])}
    sky = np.array([code.get(word, np.nan) for word in hours.sky], dtype=np.float64)
    weekday = (hours.time // 24 + 3) % 7  # 1970-01-01 was a Thursday
    free = (weekday >= 5) | np.array(hours.holiday, dtype=np.bool_)
    return np.column_stack([sky, hours.time % 24, weekday, free, hours.weather])
