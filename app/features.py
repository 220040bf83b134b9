"""The one feature function, used by the pipeline on every row and by the service on each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, reduce
from itertools import accumulate
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

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

EARTH_RADIUS_MI = 3958.7613
MINUTES_PER_DAY = 1440
EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0
_ZONE_STRIDE = 1 << 40  # minutes; far more than any clock time, so that zones do not overlap in one sorted list


def day_number(day: date) -> int:
    """Return the days from 1970-01-01 to `day`."""
    return day.toordinal() - date(1970, 1, 1).toordinal()


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


@dataclass(frozen=True)
class Tables:
    """What features need beyond the flight itself: fitted by `featurize`, carried in the model bundle.

    `airports` gives latitude, longitude (degrees) and time zone by airport code; `zones` gives, by time zone,
    the local minutes at which an offset from UTC starts, and these offsets (minutes).
    """

    vocabularies: dict[str, list[str]]
    airports: dict[str, tuple[float, float, str]]
    zones: dict[str, tuple[list[int], list[int]]]
    holidays: list[date]
    holiday_reach_days: int

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Build the tables from their JSON form."""
        return cls(
            vocabularies=data["vocabularies"],
            airports={code: (lat, lon, zone) for code, (lat, lon, zone) in data["airports"].items()},
            zones={name: (starts, offsets) for name, (starts, offsets) in data["zones"].items()},
            holidays=[date.fromisoformat(day) for day in data["holidays"]],
            holiday_reach_days=data["holiday_reach_days"],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form of the tables."""
        return {
            "vocabularies": self.vocabularies,
            "airports": self.airports,
            "zones": self.zones,
            "holidays": [day.isoformat() for day in self.holidays],
            "holiday_reach_days": self.holiday_reach_days,
        }

    def codes(self, column: str, values: Sequence[str]) -> Floats:
        """Return the integer code of each value, NaN for one that the vocabulary lacks."""
        index = self._vocabulary_index[column]
        return np.array([index.get(value, np.nan) for value in values], dtype=np.float64)

    def airport_index(self, codes: Sequence[str]) -> Ints:
        """Return the position of each airport; -1, the entry of all that is unknown, where there is none."""
        index = self._airport_index
        return np.array([index.get(code, -1) for code in codes], dtype=np.int64)

    def utc_offset(self, airport: Ints, local: Ints) -> Floats:
        """Return minutes ahead of UTC at `airport` when its clocks show `local`; NaN for an unknown airport."""
        starts, offsets = self._offsets
        return np.asarray(
            offsets[np.searchsorted(starts, self._zone_of_airport[airport] * _ZONE_STRIDE + local, "right") - 1]
        )

    def distance(self, origin: Ints, dest: Ints) -> Floats:
        """Return great-circle miles, rounded so that the last bits of a sine cannot change a model."""
        lat, lon = self._radians
        half_lat, half_lon = (lat[dest] - lat[origin]) / 2, (lon[dest] - lon[origin]) / 2
        chord = np.sin(half_lat) ** 2 + np.cos(lat[origin]) * np.cos(lat[dest]) * np.sin(half_lon) ** 2
        return np.asarray(np.round(2 * EARTH_RADIUS_MI * np.arcsin(np.sqrt(chord))))

    def holiday_distance(self, day: Ints) -> Floats:
        """Return days to the nearest holiday, negative after it, NaN farther away than the reach."""
        first, distances = self._holiday_distances
        position = day - first
        known = (position >= 0) & (position < len(distances))
        return np.where(known, distances[np.where(known, position, 0)], np.nan)

    @cached_property
    def _vocabulary_index(self) -> dict[str, dict[str, int]]:
        return {column: {value: i for i, value in enumerate(words)} for column, words in self.vocabularies.items()}

    @cached_property
    def _airport_index(self) -> dict[str, int]:
        return {code: i for i, code in enumerate(self.airports)}

    @cached_property
    def _radians(self) -> tuple[Floats, Floats]:
        places = [(lat, lon) for lat, lon, _ in self.airports.values()] + [(np.nan, np.nan)]
        lat, lon = np.radians(np.array(places, dtype=np.float64)).T
        return lat, lon

    @cached_property
    def _zone_of_airport(self) -> Ints:
        order = {name: i for i, name in enumerate(self.zones)}
        return np.array([order[zone] for _, _, zone in self.airports.values()] + [len(order)], dtype=np.int64)

    @cached_property
    def _offsets(self) -> tuple[Ints, Floats]:
        starts: list[int] = []
        offsets: list[float] = []
        for i, (local, minutes) in enumerate(self.zones.values()):
            starts += [i * _ZONE_STRIDE - _ZONE_STRIDE // 2] + [i * _ZONE_STRIDE + start for start in local[1:]]
            offsets += minutes
        starts.append(len(self.zones) * _ZONE_STRIDE - _ZONE_STRIDE // 2)
        return np.array(starts, dtype=np.int64), np.array([*offsets, np.nan])

    @cached_property
    def _holiday_distances(self) -> tuple[int, Floats]:
        holidays = np.array([day_number(day) for day in self.holidays], dtype=np.int64)
        first = day_number(date(self.holidays[0].year, 1, 1))
        last = day_number(date(self.holidays[-1].year, 12, 31))
        gaps = holidays[None, :] - np.arange(first, last + 1)[:, None]
        nearest = gaps[np.arange(len(gaps)), np.abs(gaps).argmin(axis=1)]
        return first, np.where(np.abs(nearest) <= self.holiday_reach_days, nearest, np.nan)


def compute(flights: Flights, tables: Tables) -> Floats:
    """Return the features of `flights`, shape (n, 26), columns as in `FEATURES`, NaN where one is missing."""
    return np.column_stack([*_schedule(flights, tables), *_weather(flights.weather)])


def _schedule(flights: Flights, tables: Tables) -> list[npt.NDArray[Any]]:
    origin, dest = tables.airport_index(flights.origin), tables.airport_index(flights.dest)
    block = block_minutes(flights.departure, flights.arrival, origin, dest, tables)
    distance = tables.distance(origin, dest)
    with np.errstate(divide="ignore", invalid="ignore"):
        mph = np.where(block > 0, distance / (block / 60), np.nan)
    day = flights.departure // MINUTES_PER_DAY
    return [
        tables.codes("carrier", flights.carrier),
        tables.codes("origin", flights.origin),
        tables.codes("dest", flights.dest),
        flights.departure % MINUTES_PER_DAY,
        flights.arrival % MINUTES_PER_DAY,
        block,
        distance,
        mph,
        (day + EPOCH_WEEKDAY) % 7,
        tables.holiday_distance(day),
    ]


def block_minutes(departure: Ints, arrival: Ints, origin: Ints, dest: Ints, tables: Tables) -> Floats:
    """Return scheduled minutes from gate to gate; airports by `Tables.airport_index`, times by local clocks."""
    return (arrival - tables.utc_offset(dest, arrival)) - (departure - tables.utc_offset(origin, departure))


def _weather(weather: Floats) -> list[Floats]:
    """Return the weather features; gaps are filled from other hours, only precipitation counts as it is."""
    hours = {name: list(values) for name, values in zip(WEATHER, weather, strict=True)}
    filled = {name: values if name == "precipitation_in" else _fill(values) for name, values in hours.items()}
    wind, gust = filled["wind_speed_mph"], filled["wind_gust_mph"]
    filled["wind_gust_mph"] = gust = [np.where(np.isnan(g), w, g) for g, w in zip(gust, wind, strict=True)]
    precipitation, visibility, pressure = (
        filled[name] for name in ("precipitation_in", "visibility_mi", "pressure_mb")
    )
    now = {name: values[-1] for name, values in filled.items()}
    return [
        *now.values(),
        _sum(precipitation[-3:]),
        _sum(precipitation[-6:]),
        reduce(np.fmin, visibility[-3:]),
        reduce(np.fmin, visibility[-6:]),
        reduce(np.fmax, gust[-6:]),
        pressure[-1] - pressure[0],
        now["temperature_f"] - now["dew_point_f"],
    ]


def _fill(hours: list[Floats]) -> list[Floats]:
    """Return the hours, each gap filled with the last value before it, or else with the first one after it."""
    filled = list(accumulate(hours, lambda before, now: np.where(np.isnan(now), before, now)))
    return list(accumulate(filled[::-1], lambda after, now: np.where(np.isnan(now), after, now)))[::-1]


def _sum(hours: list[Floats]) -> Floats:
    """Return the sum over the hours that are there, NaN where none is; the order is fixed, whatever SIMD there is."""
    total = reduce(np.add, [np.where(np.isnan(hour), 0.0, hour) for hour in hours])
    return np.where(reduce(np.logical_and, [np.isnan(hour) for hour in hours]), np.nan, total)
