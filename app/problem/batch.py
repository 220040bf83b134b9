"""Batches of requests as arrays, without an object for each flight."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from app.problem.features import Flights
from app.problem.request import FIRST_DEPARTURE, MAX_TRAVEL, SCHEDULED_AHEAD, WEATHER, WEATHER_HOURS
from app.problem_kit.features import Words


def from_arrays(table: Mapping[str, Any]) -> tuple[Flights, npt.NDArray[np.bool_]]:
    """Return the columns of a batch, and the mask, shape (n,), of flights that need the validator of `Flight`."""
    departure, arrival, (counts, hours) = (
        table[name] for name in ("scheduled_departure", "scheduled_arrival", "weather")
    )
    weather = np.full((len(WEATHER), WEATHER_HOURS, len(departure)), np.nan)
    flight = np.repeat(np.arange(len(departure)), counts)
    hour = WEATHER_HOURS - np.cumsum(counts)[flight] + np.arange(len(flight))  # the last one is that of departure
    for values, name in zip(weather, WEATHER, strict=True):
        values[hour, flight] = hours[name]
    flights = Flights(
        carrier=table["carrier"],
        origin=table["origin"],
        dest=table["dest"],
        departure=departure.astype("M8[m]").astype(np.int64),
        arrival=arrival.astype("M8[m]").astype(np.int64),
        weather=weather,
    )
    travel = arrival - departure
    odd = _same(table["origin"], table["dest"])
    odd |= (departure < np.datetime64(FIRST_DEPARTURE)) | (departure > np.datetime64(datetime.now() + SCHEDULED_AHEAD))
    odd |= (travel <= np.timedelta64(0)) | (travel > np.timedelta64(MAX_TRAVEL))
    return flights, odd


def _same(one: Words, other: Words) -> npt.NDArray[np.bool_]:
    """Return where two columns have the same text."""
    known = {word: i for i, word in enumerate(one.words)}
    return np.asarray(np.array([known.get(word, -1) for word in other.words])[other.places] == one.places)
