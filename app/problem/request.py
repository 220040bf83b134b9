"""The request: a flight with its schedule and, if known, the weather at its origin."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from app.problem_kit.models import LocalTime, Strict, impossible

MAX_TRAVEL = timedelta(hours=24)
FIRST_DEPARTURE = datetime(2012, 1, 1)
"""The first day of the holidays and time zone offsets in the bundle (problem.years in params.yaml)."""
SCHEDULED_AHEAD = timedelta(days=366)
"""Airlines publish schedules at most about a year ahead. The bound moves with the clock: past flights stay valid."""
WEATHER_HOURS = 7
"""Maximum hours of weather in a request; the last one is the hour of departure."""

# July 1, when thunderstorms delayed more than half of the flights.
EXAMPLE: dict[str, Any] = {
    "carrier": "UA",
    "origin": "EWR",
    "dest": "SFO",
    "scheduled_departure": "2013-07-01T18:15:00",
    "scheduled_arrival": "2013-07-01T21:29:00",
    "weather": [
        {
            "temperature_f": 75.9,
            "dew_point_f": 72.0,
            "humidity_pct": 87.5,
            "wind_direction_deg": 190,
            "wind_speed_mph": 11.5,
            "wind_gust_mph": 20.7,
            "precipitation_in": 0.3,
            "pressure_mb": 1011.2,
            "visibility_mi": 2.0,
        }
    ],
}


def _optional(description: str, lowest: float, highest: float) -> Any:
    return Field(default=None, description=description, ge=lowest, le=highest, strict=True)


class WeatherHour(Strict):
    """The weather of one hour at the origin; unknown values are omitted or null."""

    temperature_f: float | None = _optional("Air temperature, degrees Fahrenheit.", -60, 140)
    dew_point_f: float | None = _optional("Dew point, degrees Fahrenheit.", -80, 100)
    humidity_pct: float | None = _optional("Relative humidity, percent.", 0, 100)
    wind_direction_deg: float | None = _optional("Direction the wind comes from, degrees; 0 is calm or north.", 0, 360)
    wind_speed_mph: float | None = _optional("Wind speed, miles per hour.", 0, 200)
    wind_gust_mph: float | None = _optional("Gusts, miles per hour; without gusts, null.", 0, 250)
    precipitation_in: float | None = _optional("Precipitation in the hour, inches.", 0, 20)
    pressure_mb: float | None = _optional("Pressure at sea level, millibars.", 850, 1100)
    visibility_mi: float | None = _optional("Visibility, miles; 10 is unlimited.", 0, 100)


WEATHER = tuple(WeatherHour.model_fields)
"""The values of one hour of weather, in order."""


class Flight(Strict):
    """A flight that is scheduled to leave New York."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    carrier: str = Field(description="Airline, IATA code; an unknown one is allowed.", pattern=r"^[A-Z0-9]{2}$")
    origin: Literal["EWR", "JFK", "LGA"] = Field(description="Airport of departure, IATA code.")
    dest: str = Field(description="Airport of arrival, IATA code; an unknown one is allowed.", pattern=r"^[A-Z0-9]{3}$")
    scheduled_departure: LocalTime = Field(
        description="Local clock time at the origin, ISO 8601 without offset; since 2012, at most a year ahead."
    )
    scheduled_arrival: LocalTime = Field(
        description="Local clock time at the destination, ISO 8601 without offset; within 24 hours after departure."
    )
    flight_number: float | None = Field(  # JSON Schema's integer includes 12.0, which Pydantic's does not
        default=None,
        description="Number of the flight; the model does not use it. With it, flight and outcome can become data.",
        ge=1,
        le=9999,
        multiple_of=1,
        strict=True,
    )
    weather: list[WeatherHour] | None = Field(
        default=None,
        min_length=1,
        max_length=WEATHER_HOURS,
        description="Hourly forecast at the origin, oldest hour first; the last one is the hour of departure.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        departure, reasons = self.scheduled_departure, {}
        if self.dest == self.origin:
            reasons["dest"] = "must be another airport than origin"
        if departure < FIRST_DEPARTURE:
            reasons["scheduled_departure"] = f"must not be before {FIRST_DEPARTURE:%Y-%m-%d}"
        elif departure > datetime.now() + SCHEDULED_AHEAD:
            reasons["scheduled_departure"] = f"must be at most {SCHEDULED_AHEAD.days} days from now"
        travel = self.scheduled_arrival - departure
        if travel <= timedelta(0) and travel <= -_set_back(departure):
            reasons["scheduled_arrival"] = "must be after scheduled_departure"
        elif travel > MAX_TRAVEL:
            reasons["scheduled_arrival"] = "must be within 24 hours of scheduled_departure"
        if reasons:
            raise impossible(reasons)
        return self


def _set_back(departure: datetime) -> timedelta:
    """Return how much the clocks may be set back during a flight; time zones alone take less than the way to them."""
    return timedelta(hours=departure.month in (10, 11) and departure.weekday() == 6 and departure.hour < 2)
