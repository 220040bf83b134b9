"""The lookups of the features: vocabularies, airports, time zones and holidays; for arrays and for scalars."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import accumulate
from typing import Any, Self

import numpy as np

from app.problem_kit.features import Floats, Ints, Words, day_number

EARTH_RADIUS_MI = 3958.7613
_ZONE_STRIDE = 1 << 40  # minutes; larger than any time, so that zones do not overlap in one sorted array

Texts = Sequence[str | None] | Words


@dataclass(frozen=True)
class Lookups:
    """The tables that the features need besides the request: fitted by `featurize`, stored in the bundle.

    `airports` maps an airport code to latitude and longitude (degrees) and time zone; `zones` maps a time zone to the
    local minutes at which each UTC offset starts, and to these offsets (minutes).
    """

    vocabularies: dict[str, list[str]]
    airports: dict[str, tuple[float, float, str]]
    zones: dict[str, tuple[list[int], list[int]]]
    holidays: list[date]
    holiday_reach_days: int

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Create lookups from their JSON form."""
        return cls(
            vocabularies=data["vocabularies"],
            airports={code: (lat, lon, zone) for code, (lat, lon, zone) in data["airports"].items()},
            zones={name: (starts, offsets) for name, (starts, offsets) in data["zones"].items()},
            holidays=[date.fromisoformat(day) for day in data["holidays"]],
            holiday_reach_days=data["holiday_reach_days"],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form of the lookups."""
        return {
            "vocabularies": self.vocabularies,
            "airports": self.airports,
            "zones": self.zones,
            "holidays": [day.isoformat() for day in self.holidays],
            "holiday_reach_days": self.holiday_reach_days,
        }

    def codes(self, column: str, values: Texts) -> Floats:
        """Return the integer code of each value; NaN if it is not in the vocabulary."""
        if isinstance(values, Words):
            return self.codes(column, values.words)[values.places]
        index = self._vocabulary_index[column]
        return np.array([index.get(value, np.nan) for value in values], dtype=np.float64)

    def airport_index(self, codes: Texts) -> Ints:
        """Return the index of each airport; -1, the entry for unknown airports, if it is not listed."""
        if isinstance(codes, Words):
            return self.airport_index(codes.words)[codes.places]
        index = self._airport_index
        return np.array([index.get(code, -1) for code in codes], dtype=np.int64)

    def utc_offset(self, airport: Ints, local: Ints) -> Floats:
        """Return the UTC offset in minutes at an airport and local time; NaN if the airport is unknown."""
        starts, offsets = self._offsets
        return np.asarray(
            offsets[np.searchsorted(starts, self._zone_of_airport[airport] * _ZONE_STRIDE + local, "right") - 1]
        )

    def distance(self, origin: Ints, dest: Ints) -> Floats:
        """Return great-circle miles, rounded to be independent of the platform's sine (haversine formula)."""
        lat, lon = self._radians
        half_lat, half_lon = (lat[dest] - lat[origin]) / 2, (lon[dest] - lon[origin]) / 2
        chord = np.sin(half_lat) ** 2 + np.cos(lat[origin]) * np.cos(lat[dest]) * np.sin(half_lon) ** 2
        return np.asarray(np.round(2 * EARTH_RADIUS_MI * np.arcsin(np.sqrt(chord))))

    def holiday_distance(self, day: Ints) -> Floats:
        """Return days to the nearest holiday, negative after it; NaN beyond `holiday_reach_days`."""
        first, distances = self._holiday_distances
        position = day - first
        known = (position >= 0) & (position < len(distances))
        return np.where(known, distances[np.where(known, position, 0)], np.nan)

    @staticmethod
    def known(value: Any, other: Any) -> Any:
        """Return the value, or the other one if it is missing."""
        return np.where(np.isnan(value), other, value)

    @staticmethod
    def fill(hours: Sequence[Any]) -> Sequence[Any]:
        """Return the hours with gaps filled from the previous value, or else from the next one."""
        return _fill(hours, Lookups.known)

    @staticmethod
    def least(one: Any, other: Any) -> Any:
        """Return the minimum; if one is missing, the other."""
        return np.fmin(one, other)

    @staticmethod
    def greatest(one: Any, other: Any) -> Any:
        """Return the maximum; if one is missing, the other."""
        return np.fmax(one, other)

    @staticmethod
    def quotient(value: Any, by: Any) -> Any:
        """Return the quotient; NaN unless the divisor is positive."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(by > 0, value / by, np.nan)

    @cached_property
    def single(self) -> SingleLookups:
        """Return the same lookups for scalars."""
        return SingleLookups(self)

    @cached_property
    def _vocabulary_index(self) -> dict[str, dict[str | None, int]]:
        return {column: {value: i for i, value in enumerate(words)} for column, words in self.vocabularies.items()}

    @cached_property
    def _airport_index(self) -> dict[str | None, int]:
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


class SingleLookups:
    """`Lookups` for scalars instead of arrays; results are bit-identical."""

    def __init__(self, lookups: Lookups) -> None:
        # pylint: disable=protected-access # shares its tables, in containers that are faster for scalars
        self._lookups = lookups
        self._codes, self._airports = lookups._vocabulary_index, lookups._airport_index
        self._zones = lookups._zone_of_airport.tolist()
        self._starts, self._offsets = (table.tolist() for table in lookups._offsets)
        self._first_day, distances = lookups._holiday_distances
        self._holiday_distances = distances.tolist()
        self._miles: dict[tuple[int, int], float] = {}

    def codes(self, column: str, value: str) -> float:
        """See `Lookups.codes`."""
        return self._codes[column].get(value, np.nan)

    def airport_index(self, code: str) -> int:
        """See `Lookups.airport_index`."""
        return self._airports.get(code, -1)

    def utc_offset(self, airport: int, local: int) -> float:
        """See `Lookups.utc_offset`."""
        return float(self._offsets[bisect_right(self._starts, self._zones[airport] * _ZONE_STRIDE + local) - 1])

    def distance(self, origin: int, dest: int) -> float:
        """See `Lookups.distance`; the result is cached by pair of airports."""
        miles = self._miles.get((origin, dest))
        if miles is None:
            miles = self._miles[origin, dest] = float(self._lookups.distance(np.array(origin), np.array(dest)))
        return miles

    def holiday_distance(self, day: int) -> float:
        """See `Lookups.holiday_distance`."""
        position = day - self._first_day
        return float(self._holiday_distances[position]) if 0 <= position < len(self._holiday_distances) else np.nan

    # x != x is true for NaN only.
    # pylint: disable=comparison-with-itself

    @staticmethod
    def known(value: float, other: float) -> float:
        """See `Lookups.known`."""
        return value if value == value else other

    @staticmethod
    def fill(hours: Sequence[float]) -> Sequence[float]:
        """See `Lookups.fill`."""
        if len(hours) > 1:
            for value in hours:
                if value != value:
                    return _fill(hours, SingleLookups.known)
        return hours

    @staticmethod
    def least(one: float, other: float) -> float:
        """See `Lookups.least`."""
        return other if one != one or other < one else one

    @staticmethod
    def greatest(one: float, other: float) -> float:
        """See `Lookups.greatest`."""
        return other if one != one or other > one else one

    @staticmethod
    def quotient(value: float, by: float) -> float:
        """See `Lookups.quotient`."""
        return value / by if by > 0 else np.nan


def _fill(hours: Sequence[Any], known: Callable[[Any, Any], Any]) -> list[Any]:
    def carry(neighbour: Any, value: Any) -> Any:
        return known(value, neighbour)

    return list(accumulate(list(accumulate(hours, carry))[::-1], carry))[::-1]
