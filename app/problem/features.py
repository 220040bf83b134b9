"""The features: one set of formulas for the pipeline's columns and the service's single requests.

The formulas accept arrays or the scalars of a single flight, for which NumPy's overhead would be too large. Where the
two must differ (lookups, tests for missing values), `Lookups` has the method for arrays and `SingleLookups` the same
method for scalars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from app.problem.lookups import Lookups
from app.problem.request import WEATHER, WEATHER_HOURS, Flight
from app.problem_kit.features import Feature, Floats, Ints, Words

FEATURES = (
    Feature("carrier", "category", text="Airline."),
    Feature("origin", "category", text="Airport of departure."),
    Feature("dest", "category", text="Airport of arrival."),
    Feature("departure_minute", unit="min", text="Scheduled departure, minutes after local midnight."),
    Feature("arrival_minute", unit="min", text="Scheduled arrival, minutes after local midnight."),
    Feature("block_minutes", unit="min", text="Scheduled time from gate to gate."),
    Feature("distance_mi", unit="mi", text="Great-circle distance."),
    Feature("scheduled_mph", unit="mi/h", text="Distance over scheduled time."),
    Feature("day_of_week", text="0 is Monday."),
    Feature("holiday_distance_days", unit="d", text="Days to the nearest federal holiday, negative after it."),
    Feature("temperature_f", unit="°F", group="weather", text="Air temperature."),
    Feature("dew_point_f", unit="°F", group="weather", text="Dew point."),
    Feature("humidity_pct", unit="%", group="weather", text="Relative humidity."),
    Feature("wind_direction_deg", unit="°", group="weather", text="Direction the wind comes from."),
    Feature("wind_speed_mph", unit="mi/h", group="weather", text="Wind speed."),
    Feature("wind_gust_mph", unit="mi/h", group="weather", text="Gusts; the wind speed where there are none."),
    Feature("precipitation_in", unit="in", group="weather", text="Precipitation in the hour."),
    Feature("pressure_mb", unit="mb", group="weather", text="Pressure at sea level."),
    Feature("visibility_mi", unit="mi", group="weather", text="Visibility."),
    Feature("precipitation_3h_in", unit="in", group="weather", text="Precipitation of three hours."),
    Feature("precipitation_6h_in", unit="in", group="weather", text="Precipitation of six hours."),
    Feature("visibility_3h_mi", unit="mi", group="weather", text="Least visibility of three hours."),
    Feature("visibility_6h_mi", unit="mi", group="weather", text="Least visibility of six hours."),
    Feature("wind_gust_6h_mph", unit="mi/h", group="weather", text="Strongest gust of six hours."),
    Feature("pressure_change_6h_mb", unit="mb", group="weather", text="Change of the pressure in six hours."),
    Feature("dew_point_spread_f", unit="°F", group="weather", text="Temperature minus dew point."),
)
"""The columns of the model's input, in order."""

_EPOCH = datetime(1970, 1, 1)
_weather_of = attrgetter(*WEATHER)
_NO_WEATHER = (np.nan,) * len(WEATHER)

MINUTES_PER_DAY = 1440
EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0


@dataclass(frozen=True)
class Flights:
    """Flights as columns, without anything that is known only after departure.

    `departure` and `arrival` are local clock times at their airports, in minutes since 1970-01-01.
    `weather` has the shape (9, 7, n): `WEATHER` by hour, oldest first; NaN if missing.
    `number` is empty where flights are not identified: no feature uses it.
    """

    carrier: Sequence[str] | Words
    origin: Sequence[str] | Words
    dest: Sequence[str] | Words
    departure: Ints
    arrival: Ints
    weather: Floats
    number: Sequence[int | None] = ()


class SingleFlight(NamedTuple):
    """One flight as scalars; `weather` is `WEATHER` by the known hours, at least one."""

    carrier: str
    origin: str
    dest: str
    departure: int
    arrival: int
    weather: Sequence[Sequence[float]]


def arrays_of_requests(requests: Sequence[Flight]) -> Flights:
    """Convert requests to columns."""
    hours = [_weather_of(hour) for flight in requests for hour in flight.weather or ()]
    counts = np.array([len(flight.weather or ()) for flight in requests], dtype=np.int64)
    weather = np.full((len(requests), WEATHER_HOURS, len(WEATHER)), np.nan)
    weather[np.arange(WEATHER_HOURS) >= WEATHER_HOURS - counts[:, None]] = np.array(hours, dtype=np.float64).reshape(
        -1, len(WEATHER)
    )  # None becomes NaN
    return Flights(
        carrier=[flight.carrier for flight in requests],
        origin=[flight.origin for flight in requests],
        dest=[flight.dest for flight in requests],
        departure=np.array([_minutes(flight.scheduled_departure) for flight in requests], dtype=np.int64),
        arrival=np.array([_minutes(flight.scheduled_arrival) for flight in requests], dtype=np.int64),
        weather=weather.transpose(2, 1, 0),
    )


def single(flight: Flight) -> SingleFlight:
    """Convert one request to scalars."""
    hours = [tuple(np.nan if value is None else value for value in _weather_of(hour)) for hour in flight.weather or ()]
    return SingleFlight(
        carrier=flight.carrier,
        origin=flight.origin,
        dest=flight.dest,
        departure=_minutes(flight.scheduled_departure),
        arrival=_minutes(flight.scheduled_arrival),
        weather=[*zip(*hours or [_NO_WEATHER], strict=True)],
    )


def _minutes(local: datetime) -> int:
    since = local - _EPOCH
    return since.days * MINUTES_PER_DAY + since.seconds // 60


def compute(flights: Flights, lookups: Lookups) -> Floats:
    """Return the features of flights, shape (n, 26), in the order of `FEATURES`; NaN if missing."""
    return np.column_stack([*_schedule(flights, lookups), *_weather(flights.weather, lookups)])


def compute_one(flight: Flight, lookups: Lookups) -> list[float]:
    """Return the features of one request, bit-identical to the result of `compute`."""
    row = single(flight)
    return [*map(float, _schedule(row, lookups.single)), *_weather(row.weather, lookups.single)]


def _schedule(flights: Flights | SingleFlight, lookups: Any) -> list[Any]:
    origin, dest = lookups.airport_index(flights.origin), lookups.airport_index(flights.dest)
    block = block_minutes(flights.departure, flights.arrival, origin, dest, lookups)
    distance = lookups.distance(origin, dest)
    day = flights.departure // MINUTES_PER_DAY
    return [
        lookups.codes("carrier", flights.carrier),
        lookups.codes("origin", flights.origin),
        lookups.codes("dest", flights.dest),
        flights.departure % MINUTES_PER_DAY,
        flights.arrival % MINUTES_PER_DAY,
        block,
        distance,
        lookups.quotient(distance, block / 60),
        (day + EPOCH_WEEKDAY) % 7,
        lookups.holiday_distance(day),
    ]


def block_minutes(departure: Any, arrival: Any, origin: Any, dest: Any, lookups: Any) -> Any:
    """Return scheduled gate-to-gate minutes; airports as indices (`Lookups.airport_index`), times in local minutes."""
    return (arrival - lookups.utc_offset(dest, arrival)) - (departure - lookups.utc_offset(origin, departure))


def _weather(weather: Any, lookups: Any) -> list[Any]:
    """Return the weather features; gaps are filled from neighbouring hours, except in precipitation."""
    hours = dict(zip(WEATHER, weather, strict=True))
    filled = {name: hours[name] if name == "precipitation_in" else lookups.fill(hours[name]) for name in WEATHER}
    gust = filled["wind_gust_mph"] = [*map(lookups.known, filled["wind_gust_mph"], filled["wind_speed_mph"])]
    precipitation, visibility, pressure = filled["precipitation_in"], filled["visibility_mi"], filled["pressure_mb"]
    now = {name: values[-1] for name, values in filled.items()}

    def total(one: Any, other: Any) -> Any:
        return lookups.known(one + other, lookups.known(one, other))

    return [
        *now.values(),
        reduce(total, precipitation[-3:]),
        reduce(total, precipitation[-6:]),
        reduce(lookups.least, visibility[-3:]),
        reduce(lookups.least, visibility[-6:]),
        reduce(lookups.greatest, gust[-6:]),
        pressure[-1] - pressure[0],
        now["temperature_f"] - now["dew_point_f"],
    ]
