"""Raw rows of recorded requests and their outcomes: the reverse of `requests` and `outcomes`."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import pandas as pd

from app.problem.outcome import Arrival
from app.problem.request import WEATHER, Flight
from stages.problem.columns import KEYS, TABLES
from stages.problem.rows import WEATHER_COLUMNS
from stages.problem.times import LOCAL
from stages.problem_kit.columns import UTC
from stages.problem_kit.rules import Tables


def raw_rows(requests: Sequence[Flight], outcomes: Sequence[Arrival], known: Tables) -> Tables:
    """Return the flights of n requests with their outcomes, and the weather of their days at their origins.

    Of several requests for one flight, and of several values for one hour, the last counts. Missing are the times of
    departure and in the air and the tail number, a flight's number that the request lacks, and the distance of a route
    that no known flight has.
    """
    flights = _flights(requests, outcomes, known["flights"])
    return {"flights": flights, "weather": _weather(requests)}


def _flights(requests: Sequence[Flight], outcomes: Sequence[Arrival], known: pd.DataFrame) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "arr_delay": [outcome.delay_minutes for outcome in outcomes],
            "carrier": [request.carrier for request in requests],
            "flight": [request.flight_number for request in requests],
            "origin": [request.origin for request in requests],
            "dest": [request.dest for request in requests],
        }
    ).astype({"arr_delay": "float64", "flight": "float64"})
    departure, arrival = (
        pd.Series([getattr(request, name) for request in requests], dtype="datetime64[us]")
        for name in ("scheduled_departure", "scheduled_arrival")
    )
    landed = (arrival + pd.to_timedelta(frame["arr_delay"], unit="min")).pipe(_clock)
    frame = frame.assign(
        sched_dep_time=_clock(departure),
        sched_arr_time=_clock(arrival),
        arr_time=landed.mask(landed == 0, 2400),  # as midnight is written in this column
        distance=_distances(frame, known),
        minute=departure.dt.minute,
        **_local(departure),
    )
    rows = frame[~frame.duplicated(KEYS["flights"], keep="last")]
    return rows.reindex(columns=list(TABLES["flights"])).reset_index(drop=True)


def _distances(frame: pd.DataFrame, known: pd.DataFrame) -> pd.Series:
    """Return the distance of each flight's route, NaN if no known flight has it."""
    route = ["origin", "dest"]
    return (
        known.groupby(route)["distance"].first().reindex(pd.MultiIndex.from_frame(frame[route])).set_axis(frame.index)
    )


def _weather(requests: Sequence[Flight]) -> pd.DataFrame:
    """Return the hours that have any value, on the local days of the flights."""
    values, cells = attrgetter(*WEATHER), []
    for request in requests:
        hour = request.scheduled_departure.replace(minute=0, second=0, microsecond=0)
        for back, known in enumerate(reversed(request.weather or ())):
            cells.append((request.origin, hour, back, *values(known)))
    frame = pd.DataFrame(cells, columns=["origin", "departure", "back", *WEATHER_COLUMNS])
    frame[WEATHER_COLUMNS] = frame[WEATHER_COLUMNS].astype("float64")
    frame["time_hour"] = _utc(frame["departure"].astype("datetime64[us]")) - pd.to_timedelta(frame["back"], unit="h")
    local = frame["time_hour"].dt.tz_convert(LOCAL).dt.tz_localize(None)
    frame = frame.assign(**_local(local) | {"time_hour": frame["time_hour"]})
    days = {request.scheduled_departure.date() for request in requests}
    wanted = frame[WEATHER_COLUMNS].notna().any(axis=1) & local.dt.date.isin(days)
    rows = frame[wanted & ~frame[wanted].duplicated(KEYS["weather"], keep="last").reindex(frame.index, fill_value=True)]
    return rows[list(TABLES["weather"])].reset_index(drop=True)


def _clock(times: pd.Series) -> pd.Series:
    return times.dt.hour * 100 + times.dt.minute


def _utc(local: pd.Series) -> pd.Series:
    """Return local times, to the hour, in UTC; NaT in the hours of a clock change."""
    return local.dt.floor("h").dt.tz_localize(LOCAL, ambiguous="NaT", nonexistent="NaT").astype(UTC)


def _local(local: pd.Series) -> dict[str, pd.Series]:
    """Return date, hour and `time_hour` of local times."""
    parts = {name: getattr(local.dt, name) for name in ("year", "month", "day", "hour")}
    return parts | {"time_hour": _utc(local)}
