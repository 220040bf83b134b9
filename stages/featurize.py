"""featurize: repaired tables in; features, target and the tables that the service needs for the same out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import holidays
import numpy as np
import numpy.typing as npt
import pandas as pd

from app.problem.features import (
    CATEGORICAL,
    FEATURES,
    MINUTES_PER_DAY,
    WEATHER,
    WEATHER_HOURS,
    Flights,
    block_minutes,
    compute,
)
from app.problem.lookups import Ints, Tables, day_number
from stages import params, tracking
from stages.errors import DataInvalid, run
from stages.files import write_json
from stages.params import FeaturizeParams
from stages.problem import raw as data
from stages.problem.raw import RawTables

OUT_DIR = Path("build/features")
TARGET = "not_on_time"
DAY = "day"

CHUNK_ROWS = 100_000
WEATHER_COLUMNS = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
"""The columns of weather.csv, in the order of app.problem.features.WEATHER."""


def repair(tables: RawTables, repairs: list[dict[str, Any]]) -> RawTables:
    """Return the tables after the repairs that `validate` lists: rows dropped, cells emptied."""
    frames = {name: getattr(tables, name) for name in ("flights", "weather")}
    for item in repairs:
        frame = frames[item["table"]]
        rows = np.logical_and.reduce([frame[column].astype(str) == value for column, value in item["key"].items()])
        if rows.sum() != 1:
            raise DataInvalid(
                f"build/repairs.json repairs {item['table']} {item['key']}, which is {rows.sum()} rows. "
                "`dvc repro validate` writes the report anew."
            )
        if item["action"] == "drop":
            frames[item["table"]] = frame[~rows].reset_index(drop=True)
        else:
            frames[item["table"]] = frame.assign(**{item["column"]: frame[item["column"]].where(~rows)})
    return RawTables(**frames, planes=tables.planes, airports=tables.airports, airlines=tables.airlines)


def time_zone_offsets(zone: str, years: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Return the local minutes since 1970 at which an offset from UTC starts, and the offsets in minutes."""
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
        # Clocks change at whole hours of a day: step by days while the day after has the same offset.
        tomorrow = info.utcoffset(hour + timedelta(days=1))
        hour += timedelta(days=1) if tomorrow == offset else timedelta(hours=1)
    return starts, offsets


def fit_tables(tables: RawTables, training_rows: npt.NDArray[np.bool_], p: FeaturizeParams) -> Tables:
    """Fit vocabularies on the training rows, and collect airports, time zones and holidays."""
    known = tables.airports.dropna(subset=["tzone"])
    known = known[known["tzone"].str.startswith(("America/", "Pacific/")) & (known["lon"] < 0)]
    places = {row.faa: (row.lat, row.lon, row.tzone) for row in known.itertuples()} | p.extra_airports
    # Alaska's westernmost airports lie beyond 180°: flown to by nobody here, they are left out with the misplaced ones.
    zones = sorted({zone for _, _, zone in places.values()})
    return Tables(
        vocabularies={c: sorted(tables.flights.loc[training_rows, c].unique()) for c in CATEGORICAL},
        airports={code: places[code] for code in sorted(places)},
        zones={zone: time_zone_offsets(zone, p.years) for zone in zones},
        holidays=sorted(holidays.country_holidays("US", years=range(p.years[0], p.years[1] + 1), observed=False)),
        holiday_reach_days=p.holiday_reach_days,
    )


def flight_days(flights: pd.DataFrame) -> Ints:
    """Return the local day of each scheduled departure, in days since 1970-01-01."""
    days = pd.to_datetime(flights[["year", "month", "day"]])
    return np.asarray(days.to_numpy().astype("datetime64[D]"), dtype=np.int64)


def scheduled_minutes(hhmm: pd.Series) -> Ints:
    """Return minutes after midnight of clock times written as HHMM."""
    clock: Ints = hhmm.to_numpy(dtype=np.int64)
    return clock // 100 * 60 + clock % 100


def utc_hours(times: pd.Series) -> Ints:
    """Return hours since 1970-01-01 UTC."""
    return np.asarray(times.dt.tz_convert(None).to_numpy().astype("datetime64[h]"), dtype=np.int64)


def weather_windows(flights: pd.DataFrame, weather: pd.DataFrame, age_hours: int = 0) -> npt.NDArray[np.float64]:
    """Return weather by (variable, hour, flight), shape (9, 7, n): the hours up to that of the scheduled departure.

    With `age_hours`, every hour shows what was observed that many hours before it.
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


def as_columns(flights: pd.DataFrame, weather: pd.DataFrame, tables: Tables, age_hours: int = 0) -> Flights:
    """Return the flights as the feature function takes them: schedule and weather, no other column is read.

    The arrival's date is not in the data: it is the first one that makes the scheduled time of travel positive.
    """
    midnight = flight_days(flights) * MINUTES_PER_DAY
    departure = midnight + scheduled_minutes(flights["sched_dep_time"])
    arrival = midnight + scheduled_minutes(flights["sched_arr_time"])
    origin, dest = tables.airport_index(flights["origin"]), tables.airport_index(flights["dest"])
    arrival += np.where(block_minutes(departure, arrival, origin, dest, tables) <= 0, MINUTES_PER_DAY, 0)
    return Flights(
        carrier=flights["carrier"].tolist(),
        origin=flights["origin"].tolist(),
        dest=flights["dest"].tolist(),
        departure=departure,
        arrival=arrival,
        weather=weather_windows(flights, weather, age_hours),
    )


def target(flights: pd.DataFrame, late_minutes: int) -> npt.NDArray[np.int8]:
    """Return 1 where a flight was not on time: late on arrival, cancelled or diverted (US DOT's definition)."""
    delay = flights["arr_delay"].to_numpy(dtype=np.float64)
    return np.asarray(np.isnan(delay) | (delay >= late_minutes), dtype=np.int8)


def features(
    flights: pd.DataFrame, weather: pd.DataFrame, tables: Tables, p: FeaturizeParams, age_hours: int = 0
) -> pd.DataFrame:
    """Return features, target and day of each flight, computed in chunks so that memory stays bounded."""

    def chunks() -> Iterator[npt.NDArray[np.float64]]:
        for start in range(0, len(flights), CHUNK_ROWS):
            part = flights.iloc[start : start + CHUNK_ROWS]
            yield compute(as_columns(part, weather, tables, age_hours), tables)

    frame = pd.DataFrame(np.concatenate(list(chunks())), columns=list(FEATURES))
    return frame.assign(**{TARGET: target(flights, p.late_minutes), DAY: flight_days(flights).astype(np.int32)})


def as_requests(flights: Flights) -> list[dict[str, Any]]:
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
                "weather": None if np.isnan(flights.weather[:, :, i]).all() else weather,
            }
        )
    return bodies


def within(days: Ints, period: tuple[date, date]) -> npt.NDArray[np.bool_]:
    """Return which days lie in the period, both ends included."""
    return (days >= day_number(period[0])) & (days <= day_number(period[1]))


def golden_requests(
    flights: pd.DataFrame, weather: pd.DataFrame, tables: Tables, p: FeaturizeParams
) -> list[dict[str, Any]]:
    """Return requests drawn from `flights`; the last ones lack weather and have an unknown carrier and destination."""
    rows = flights.sample(p.golden_rows, random_state=p.seed).sort_index()
    requests = as_requests(as_columns(rows, weather, tables))
    requests[-2]["weather"] = None
    requests[-1] |= {"carrier": "ZZ", "dest": "XXX"}
    return requests


def main() -> None:
    """Read raw tables and repairs, write features, tables and samples to build/features."""
    p = params.load().featurize
    repairs = json.loads(Path("build/repairs.json").read_text(encoding="utf-8"))
    with tracking.stage_run("featurize", p, inputs=["data"]) as log:
        raw = repair(data.load(), repairs)
        days = flight_days(raw.flights)
        in_train, in_test = within(days, p.train), within(days, p.test)
        tables = fit_tables(raw, in_train, p)
        OUT_DIR.mkdir(parents=True, exist_ok=True)
        train = features(raw.flights[in_train], raw.weather, tables, p)
        test_flights = raw.flights[in_test]
        train.to_parquet(OUT_DIR / "train.parquet", index=False)
        train.sample(p.reference_rows, random_state=p.seed).sort_index().to_parquet(OUT_DIR / "reference.parquet")
        for age in (0, *p.weather_age_hours):
            name = f"test_weather_{age}h_old.parquet" if age else "test.parquet"
            features(test_flights, raw.weather, tables, p, age).to_parquet(OUT_DIR / name, index=False)
        write_json(OUT_DIR / "tables.json", tables.to_json())
        write_json(OUT_DIR / "golden.json", golden_requests(raw.flights[in_train], raw.weather, tables, p))
        log.metrics(
            train_rows=int(in_train.sum()),
            test_rows=int(in_test.sum()),
            repairs=len(repairs),
            train_rate=float(train[TARGET].mean()),
        )
        log.artifact(OUT_DIR / "tables.json")


if __name__ == "__main__":
    run(main)
