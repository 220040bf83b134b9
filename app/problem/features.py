"""The one feature function, used by the pipeline on every row and by the service on each request.

A formula is written once. It takes columns, or the plain numbers of a single flight: NumPy takes as long for an
array of one as for an array of a hundred. Where the two must do different things, to look something up and to
see whether a value is missing, `Tables` has the method for columns and `SingleTables` the same for numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from app.problem.lookups import Floats, Ints, Tables

WEATHER = (
    "temperature_f",
    "dew_point_f",
    "humidity_pct",
    "wind_direction_deg",
    "wind_speed_mph",
    "wind_gust_mph",
    "precipitation_in",
    "pressure_mb",
    "visibility_mi",
)
"""What one hour of weather holds, in the order of `Flights.weather`."""

WEATHER_HOURS = 7
"""Hours of weather that features look at; the last one is the hour of departure."""

CATEGORICAL = ("carrier", "origin", "dest")
SCHEDULE_FEATURES = (
    *CATEGORICAL,
    "departure_minute",
    "arrival_minute",
    "block_minutes",
    "distance_mi",
    "scheduled_mph",
    "day_of_week",
    "holiday_distance_days",
)
WEATHER_FEATURES = (
    *WEATHER,
    "precipitation_3h_in",
    "precipitation_6h_in",
    "visibility_3h_mi",
    "visibility_6h_mi",
    "wind_gust_6h_mph",
    "pressure_change_6h_mb",
    "dew_point_spread_f",
)
FEATURES = (*SCHEDULE_FEATURES, *WEATHER_FEATURES)
"""The columns of the model's input, in order."""

MINUTES_PER_DAY = 1440
EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0


@dataclass(frozen=True)
class Flights:
    """Flights as columns, with nothing in them that is known only after departure.

    `departure` and `arrival` are local clock times at their airports, in minutes since 1970-01-01.
    `weather` has the shape (9, 7, n): `WEATHER` by hour, oldest first; NaN where there is none.
    """

    carrier: Sequence[str]
    origin: Sequence[str]
    dest: Sequence[str]
    departure: Ints
    arrival: Ints
    weather: Floats


class SingleFlight(NamedTuple):
    """One flight, as `Flights` has many; `weather` is `WEATHER` by the hours that are known, at least one."""

    carrier: str
    origin: str
    dest: str
    departure: int
    arrival: int
    weather: Sequence[Sequence[float]]


def compute(flights: Flights, tables: Tables) -> Floats:
    """Return the features of `flights`, shape (n, 26), columns as in `FEATURES`, NaN where one is missing."""
    return np.column_stack([*_schedule(flights, tables), *_weather(flights.weather, tables)])


def compute_single(flight: SingleFlight, tables: Tables) -> list[float]:
    """Return the features of one flight, those that `compute` gives to the bit."""
    return [*map(float, _schedule(flight, tables.single)), *_weather(flight.weather, tables.single)]


def _schedule(flights: Flights | SingleFlight, tables: Any) -> list[Any]:
    origin, dest = tables.airport_index(flights.origin), tables.airport_index(flights.dest)
    block = block_minutes(flights.departure, flights.arrival, origin, dest, tables)
    distance = tables.distance(origin, dest)
    day = flights.departure // MINUTES_PER_DAY
    return [
        tables.codes("carrier", flights.carrier),
        tables.codes("origin", flights.origin),
        tables.codes("dest", flights.dest),
        flights.departure % MINUTES_PER_DAY,
        flights.arrival % MINUTES_PER_DAY,
        block,
        distance,
        tables.quotient(distance, block / 60),
        (day + EPOCH_WEEKDAY) % 7,
        tables.holiday_distance(day),
    ]


def block_minutes(departure: Any, arrival: Any, origin: Any, dest: Any, tables: Any) -> Any:
    """Return scheduled minutes from gate to gate; airports by `Tables.airport_index`, times by local clocks."""
    return (arrival - tables.utc_offset(dest, arrival)) - (departure - tables.utc_offset(origin, departure))


def _weather(weather: Any, tables: Any) -> list[Any]:
    """Return the weather features; gaps are filled from other hours, only precipitation counts as it is."""
    hours = dict(zip(WEATHER, weather, strict=True))
    filled = {name: hours[name] if name == "precipitation_in" else tables.fill(hours[name]) for name in WEATHER}
    gust = filled["wind_gust_mph"] = [*map(tables.known, filled["wind_gust_mph"], filled["wind_speed_mph"])]
    precipitation, visibility, pressure = filled["precipitation_in"], filled["visibility_mi"], filled["pressure_mb"]
    now = {name: values[-1] for name, values in filled.items()}

    def total(one: Any, other: Any) -> Any:
        return tables.known(one + other, tables.known(one, other))

    return [
        *now.values(),
        reduce(total, precipitation[-3:]),
        reduce(total, precipitation[-6:]),
        reduce(tables.least, visibility[-3:]),
        reduce(tables.least, visibility[-6:]),
        reduce(tables.greatest, gust[-6:]),
        pressure[-1] - pressure[0],
        now["temperature_f"] - now["dew_point_f"],
    ]
