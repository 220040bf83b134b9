"""What the service takes and answers, with units and bounds; the examples are answered as they stand."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NaiveDatetime, WithJsonSchema, model_validator

from app.problem.features import WEATHER_HOURS

MAX_BATCH = 1000
MAX_TRAVEL_HOURS = 24

# July 1, when thunderstorms held up more than half of the flights.
EXAMPLE_FLIGHT: dict[str, Any] = {
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


# JSON Schema's date-time asks for an offset; date-time-local is what OpenAPI's registry of formats has without one.
LocalTime = Annotated[NaiveDatetime, WithJsonSchema({"type": "string", "format": "date-time-local"})]


class Strict(BaseModel):
    """A request part: unknown fields, NaN and infinities are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class WeatherHour(Strict):
    """The weather of one hour at the origin; what is not known is left out or null."""

    temperature_f: float | None = _optional("Air temperature, degrees Fahrenheit.", -60, 140)
    dew_point_f: float | None = _optional("Dew point, degrees Fahrenheit.", -80, 100)
    humidity_pct: float | None = _optional("Relative humidity, percent.", 0, 100)
    wind_direction_deg: float | None = _optional("Direction the wind comes from, degrees; 0 is calm or north.", 0, 360)
    wind_speed_mph: float | None = _optional("Wind speed, miles per hour.", 0, 200)
    wind_gust_mph: float | None = _optional("Gusts, miles per hour; without gusts, null.", 0, 250)
    precipitation_in: float | None = _optional("Precipitation in the hour, inches.", 0, 20)
    pressure_mb: float | None = _optional("Pressure at sea level, millibars.", 850, 1100)
    visibility_mi: float | None = _optional("Visibility, miles; 10 is unlimited.", 0, 100)


class Flight(Strict):
    """A flight that is scheduled to leave New York."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_FLIGHT]})

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


class Batch(Strict):
    """Flights that are answered together, in their order."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"flights": [EXAMPLE_FLIGHT]}]})

    flights: list[Flight] = Field(min_length=1, max_length=MAX_BATCH)


class ModelVersion(BaseModel):
    """Which model answered."""

    name: str = Field(description="Name in the registry.", examples=["flight-delay"])
    version: str = Field(description="Version in the registry.", examples=["1"])


class Contribution(BaseModel):
    """What one feature did to a prediction."""

    feature: str = Field(examples=["precipitation_in"])
    value: float | str | None = Field(description="The value that the model saw; null where it had none.")
    contribution: float = Field(description="What it added to the log-odds.", examples=[0.41])


class Explanation(BaseModel):
    """How the log-odds of the probability came about: the baseline and all contributions add up to them."""

    log_odds: float = Field(description="ln(p / (1 - p)) of the probability.", examples=[1.87])
    baseline: float = Field(description="The log-odds before anything is known of the flight.", examples=[-1.05])
    contributions: list[Contribution] = Field(description="Of every feature, those that mattered most first.")


class Prediction(BaseModel):
    """The risk of one flight."""

    prediction_id: str = Field(description="Identifies this answer.", examples=["0190b6c2f8c94e4f9d0f6f4f3d2b1a00"])
    probability: float = Field(
        description="Probability of not arriving on time: 15 or more minutes late, cancelled or diverted.",
        ge=0,
        le=1,
        examples=[0.62],
    )
    alert: bool = Field(description="Whether the probability reaches the threshold.", examples=[True])
    threshold: float = Field(description="The model's decision threshold.", ge=0, le=1, examples=[0.35])
    model: ModelVersion
    explanation: Explanation | None = Field(default=None, description="There when it was asked for.")


class BatchPrediction(BaseModel):
    """The risks of the flights of a batch, in their order."""

    predictions: list[Prediction]


class Live(BaseModel):
    """The process runs."""

    status: Literal["live"] = "live"


class Ready(BaseModel):
    """A model is loaded, and has answered its golden requests."""

    status: Literal["ready"] = "ready"
    model: ModelVersion


class Version(BaseModel):
    """What is served, and where it comes from."""

    model: ModelVersion
    alias: str = Field(description="Alias that named this version when it was loaded.")
    source: Literal["registry", "baked"] = Field(description="Where it was loaded from: the registry, or the image.")
    run_id: str | None = Field(description="MLflow run that made the model.")
    bundle_digest: str = Field(description="SHA-256 of the bundle's manifest.")
    threshold: float
    training_data_sha256: str = Field(description="SHA-256 of the rows that the model was trained on.")
    commit: str | None = Field(description="Git commit of the service's code.")


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    field: str = Field(examples=["weather.0.humidity_pct"])
    message: str = Field(examples=["Input should be less than or equal to 100"])


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(default="about:blank")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The status of the answer.")
    detail: str = Field(description="What is wrong, and where.")
    errors: list[FieldError] | None = Field(default=None, description="By field, when the request is at fault.")
