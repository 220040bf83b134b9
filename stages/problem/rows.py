"""Rows, lookups and columns from the repaired tables; requests and outcomes from these."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import holidays
import numpy as np
import numpy.typing as npt
import pandas as pd

from app.problem.features import FEATURES, MINUTES_PER_DAY, Flights, block_minutes
from app.problem.lookups import Lookups
from app.problem.outcome import LATE_MINUTES
from app.problem.request import WEATHER, WEATHER_HOURS
from app.problem_kit.features import Ints
from stages.problem.columns import KEYS
from stages.problem.params import Params
from stages.problem.times import local_dates, minutes
from stages.problem_kit.rows import LabelledRows, row_keys
from stages.problem_kit.rules import Tables

WEATHER_COLUMNS = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
"""The columns of weather.csv, in the order of the request's WEATHER."""

EDGE_CASES: list[dict[str, Any]] = [{"weather": None}, {"carrier": "ZZ", "dest": "XXX"}]


def reach_days(p: Params) -> int:
    """Return how many days before a flight its oldest weather is, in the scenarios too."""
    return (WEATHER_HOURS + max(p.weather_age_hours, default=0)) // 24 + 1


def labelled_rows(tables: Tables, _: Params) -> LabelledRows:
    """Return the flights; the target is 1 if late, cancelled or diverted (US DOT); groups are days."""
    flights = tables["flights"]
    delay = flights["arr_delay"].to_numpy(dtype=np.float64)
    target = np.asarray(np.isnan(delay) | (delay >= LATE_MINUTES), dtype=np.int8)
    day = flight_days(flights).astype(np.int32)
    return LabelledRows(flights, target, day, day, row_keys(flights[KEYS["flights"]]))


def time_zone_offsets(zone: str, years: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Return the local minutes since 1970-01-01 at which each UTC offset starts, and the offsets in minutes."""
    info = ZoneInfo(zone)
    starts: list[int] = []
    offsets: list[int] = []
    hour = datetime(years[0], 1, 1)
    while hour.year <= years[1]:
        offset = info.utcoffset(hour)
        assert offset is not None
        minutes = int(offset.total_seconds()) // 60
        if not offsets or offsets[-1] != minutes:
            starts.append(int((hour - datetime(1970, 1, 1)).total_seconds()) // 60)
            offsets.append(minutes)
        # Offsets change at whole hours: step by days while the next day has the same offset.
        tomorrow = info.utcoffset(hour + timedelta(days=1))
        hour += timedelta(days=1) if tomorrow == offset else timedelta(hours=1)
    return starts, offsets


def lookups(tables: Tables, training: Iterable[pd.DataFrame], p: Params) -> Lookups:
    """Return the lookups: vocabularies of the training rows, airports, time zones and holidays."""
    words: dict[str, set[str]] = {feature.name: set() for feature in FEATURES if feature.kind == "category"}
    for part in training:
        for name, found in words.items():
            found.update(part[name].unique())
    known = tables["airports"].dropna(subset=["tzone"])
    known = known[known["tzone"].str.startswith(("America/", "Pacific/")) & (known["lon"] < 0)]
    # Alaska's westernmost airports, beyond 180°, have no flights and are excluded with the misplaced ones.
    places = {row.faa: (row.lat, row.lon, row.tzone) for row in known.itertuples()} | p.extra_airports
    zones = sorted({zone for _, _, zone in places.values()})
    years = range(p.years[0], p.years[1] + 1)
    return Lookups(
        vocabularies={name: sorted(found) for name, found in words.items()},
        airports={code: places[code] for code in sorted(places)},
        zones={zone: time_zone_offsets(zone, p.years) for zone in zones},
        holidays=sorted(holidays.country_holidays("US", years=years, observed=False)),
        holiday_reach_days=p.holiday_reach_days,
    )


def flight_days(flights: pd.DataFrame) -> Ints:
    """Return the local day of each scheduled departure, in days since 1970-01-01."""
    return np.asarray(local_dates(flights).to_numpy().astype("datetime64[D]"), dtype=np.int64)


def utc_hours(times: pd.Series) -> Ints:
    """Return hours since 1970-01-01 UTC."""
    return np.asarray(times.dt.tz_convert(None).to_numpy().astype("datetime64[h]"), dtype=np.int64)


def weather_windows(flights: pd.DataFrame, weather: pd.DataFrame, age_hours: int = 0) -> npt.NDArray[np.float64]:
    """Return weather by (variable, hour, flight), shape (9, 7, n); the last hour is the scheduled departure's.

    With `age_hours`, observations are replaced by those made that many hours earlier.
    """
    place = {code: i for i, code in enumerate(sorted(flights["origin"].unique()))}
    observed = weather[weather["origin"].isin(place)]
    observed_hour, flight_hour = utc_hours(observed["time_hour"]), utc_hours(flights["time_hour"])
    first = min(observed_hour.min(initial=flight_hour.min()), flight_hour.min()) - WEATHER_HOURS - age_hours
    last = max(observed_hour.max(initial=flight_hour.max()), flight_hour.max())
    grid = np.full((len(place), last - first + 1, len(WEATHER)), np.nan)
    grid[observed["origin"].map(place).to_numpy(), observed_hour - first] = observed[WEATHER_COLUMNS].to_numpy(
        dtype=np.float64
    )
    origin, hours = flights["origin"].map(place).to_numpy(), flight_hour - first - age_hours
    return np.stack([grid[origin, hours + back] for back in range(1 - WEATHER_HOURS, 1)]).transpose(2, 0, 1)


def scenarios(p: Params) -> list[str]:
    """Return the names of the scenarios: weather that was observed hours earlier."""
    return [_aged(hours) for hours in p.weather_age_hours]


def _aged(hours: int) -> str:
    return f"weather {hours} h old"


def arrays_of_rows(flights: pd.DataFrame, tables: Tables, lookups: Lookups, p: Params, scenario: str = "") -> Flights:
    """Return flights as columns for `compute`; only schedule and weather are read.

    The date of arrival is not in the data: it is the first one with a positive scheduled time of travel.
    """
    age_hours = {_aged(hours): hours for hours in p.weather_age_hours}.get(scenario, 0)
    midnight = flight_days(flights) * MINUTES_PER_DAY
    departure = midnight + minutes(flights["sched_dep_time"]).to_numpy(dtype=np.int64)
    arrival = midnight + minutes(flights["sched_arr_time"]).to_numpy(dtype=np.int64)
    origin, dest = lookups.airport_index(flights["origin"]), lookups.airport_index(flights["dest"])
    arrival += np.where(block_minutes(departure, arrival, origin, dest, lookups) <= 0, MINUTES_PER_DAY, 0)
    return Flights(
        carrier=flights["carrier"].tolist(),
        origin=flights["origin"].tolist(),
        dest=flights["dest"].tolist(),
        departure=departure,
        arrival=arrival,
        weather=weather_windows(flights, tables["weather"], age_hours),
        number=flights["flight"].tolist(),
    )


def requests(flights: Flights) -> list[dict[str, Any]]:
    """Return the flights as bodies of `POST /predict`."""

    def hour(values: npt.NDArray[np.float64]) -> dict[str, float | None]:
        return {name: None if np.isnan(x) else float(x) for name, x in zip(WEATHER, values, strict=True)}

    bodies = []
    for i, carrier in enumerate(flights.carrier):
        clocks = np.array([flights.departure[i], flights.arrival[i]], dtype="datetime64[m]").astype(str)
        weather = [hour(flights.weather[:, h, i]) for h in range(WEATHER_HOURS)]
        bodies.append(
            {
                "carrier": carrier,
                "origin": flights.origin[i],
                "dest": flights.dest[i],
                "scheduled_departure": f"{clocks[0]}:00",
                "scheduled_arrival": f"{clocks[1]}:00",
                "flight_number": flights.number[i] if flights.number else None,
                "weather": None if np.isnan(flights.weather[:, :, i]).all() else weather,
            }
        )
    return bodies


def outcomes(flights: pd.DataFrame, _: Params) -> list[dict[str, Any]]:
    """Return the outcomes of flights as bodies of `POST /outcomes`, without ids."""

    def outcome(delay: float, departure: float) -> dict[str, Any]:
        if np.isnan(delay):
            return {"status": "cancelled" if np.isnan(departure) else "diverted"}
        return {"status": "arrived", "delay_minutes": int(delay)}

    return [outcome(*pair) for pair in zip(flights["arr_delay"], flights["dep_time"], strict=True)]
