"""The request: a flight with its schedule and, if known, the weather at its origin."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, NaiveDatetime, WithJsonSchema, model_validator

from app.strict import Strict

MAX_TRAVEL_HOURS = 24
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


# JSON Schema's date-time requires an offset; date-time-local, of OpenAPI's format registry, has none.
LocalTime = Annotated[NaiveDatetime, WithJsonSchema({"type": "string", "format": "date-time-local"})]


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
    scheduled_departure: LocalTime = Field(description="Local clock time at the origin, ISO 8601 without offset.")
    scheduled_arrival: LocalTime = Field(description="Local clock time at the destination, ISO 8601 without offset.")
    weather: list[WeatherHour] | None = Field(
        default=None,
        min_length=1,
        max_length=WEATHER_HOURS,
        description="Hourly forecast at the origin, oldest hour first; the last one is the hour of departure.",
    )

    @model_validator(mode="after")
    def _times_fit(self) -> Self:
        hours = (self.scheduled_arrival - self.scheduled_departure).total_seconds() / 3600
        if not -MAX_TRAVEL_HOURS <= hours <= MAX_TRAVEL_HOURS:
            raise ValueError(f"scheduled_arrival must be within {MAX_TRAVEL_HOURS} hours of scheduled_departure")
        return self
