"""Busy hours of a bicycle rental, as the pipeline needs them: the table, its rules and repairs, target and slices."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandera.pandas import Column

from app.problem import BUSY, WEATHER, Hours, Lookups
from app.problem_kit.features import Ints, day_number
from stages.problem_kit.columns import integer, real, text
from stages.problem_kit.params import Coverage
from stages.problem_kit.rows import LabelledRows, row_keys
from stages.problem_kit.rules import Flags, Rules, Tables


class Params(Coverage):
    """The section `problem` of params.yaml."""

    weather_age_hours: int


MONTHS = ["Jan", "Feb", "March", "April", "May", "June", "July", "Aug", "Sept", "Oct", "Nov", "Dec"]
TABLES: dict[str, dict[str, Column]] = {
    "Bikeshare": {
        "season": integer(1, 4),
        "mnth": text(f"^(?:{'|'.join(MONTHS)})$"),
        "day": integer(1, 366),
        "hr": integer(0, 23),
        "holiday": integer(0, 1),
        "weekday": integer(0, 6),
        "workingday": integer(0, 1),
        "weathersit": text("^(?:clear|cloudy/misty|(?:light|heavy) rain/snow)$"),
        "temp": real(0, 1),
        "atemp": real(0, 1),
        "hum": real(0.01, 1),  # 0 on the day on which the sensor failed
        "windspeed": real(0, 1),
        "casual": integer(0, 10_000),
        "registered": integer(0, 10_000),
        "bikers": integer(0, 10_000),
    }
}
KEYS = {"Bikeshare": ["day", "hr"]}
REPAIRS = {"Bikeshare.hum": {"action": "null", "column": "hum"}}
RULES = Rules()


def times(frame: pd.DataFrame, p: Params) -> Ints:
    """Return the hour of each row, in hours since 1970-01-01; the table has day of the year and hour."""
    return np.asarray((day_number(p.first_date) + frame["day"] - 1) * 24 + frame["hr"], dtype=np.int64)


def days(_table: str, frame: pd.DataFrame, p: Params) -> pd.Series:
    """Return the day of each row."""
    return pd.to_datetime(p.first_date) + pd.to_timedelta(frame["day"] - 1, unit="D")


@RULES.add("Bikeshare")
def hour_unique(t: Tables, _: Params) -> Flags:
    """No two rows are of the same hour."""
    return t["Bikeshare"].duplicated(KEYS["Bikeshare"])


@RULES.add("Bikeshare")
def calendar(t: Tables, p: Params) -> Flags:
    """Month and weekday are those of the day, and the day lies in the period."""
    table, day = t["Bikeshare"], days("Bikeshare", t["Bikeshare"], p)
    month = day.dt.month.map(dict(enumerate(MONTHS, start=1)))
    return (table["mnth"] != month) | (table["weekday"] != (day.dt.dayofweek + 1) % 7) | (day.dt.date > p.last_date)


@RULES.add("Bikeshare")
def bikers_total(t: Tables, _: Params) -> Flags:
    """Casual and registered riders add up to all riders."""
    return t["Bikeshare"]["casual"] + t["Bikeshare"]["registered"] != t["Bikeshare"]["bikers"]


@RULES.add("Bikeshare", "warning")
def whole_day(t: Tables, _: Params) -> Flags:
    """Every day has at least 20 hours."""
    return t["Bikeshare"].groupby("day").size() < 20


def labelled_rows(tables: Tables, p: Params) -> LabelledRows:
    """Return a row per hour; those of one day are resampled together."""
    frame = tables["Bikeshare"]
    day = (times(frame, p) // 24).astype(np.int32)
    busy = (frame["bikers"] >= BUSY).to_numpy(dtype=np.int8)
    return LabelledRows(frame, target=busy, day=day, group=day, key=row_keys(frame[KEYS["Bikeshare"]]))


def lookups(_tables: Tables, training: Iterable[pd.DataFrame], _p: Params) -> Lookups:
    """Return the words of the training rows."""
    words = {word for part in training for word in part["weathersit"].unique()}
    return Lookups({"sky": sorted(words)})


def reach_days(p: Params) -> int:
    """Return the days before a row that `arrays_of_rows` reads."""
    return math.ceil(p.weather_age_hours / 24)


def scenarios(p: Params) -> list[str]:
    """Return the name of the test with older weather."""
    return [f"weather {p.weather_age_hours} h old"]


def arrays_of_rows(frame: pd.DataFrame, tables: Tables, _lookups: Lookups, p: Params, scenario: str = "") -> Hours:
    """Return rows as arrays, in the scenario with older weather; the counts, known only afterwards, are not used."""
    time = times(frame, p)
    table = tables["Bikeshare"].set_index(times(tables["Bikeshare"], p))
    weather = table.reindex(time - p.weather_age_hours if scenario else time)
    sky = weather["weathersit"].astype(object)
    scaled = [weather["temp"] * 47 - 8, weather["atemp"] * 66 - 16, weather["hum"] * 100, weather["windspeed"] * 67]
    return Hours(
        time=time,
        holiday=(frame["holiday"] == 1).tolist(),
        sky=sky.where(sky.notna(), None).tolist(),
        weather=np.column_stack(scaled).round(2),
    )


def requests(hours: Hours) -> list[dict[str, Any]]:
    """Return the hours as bodies of `POST /predict`."""
    starts = hours.time.astype("datetime64[h]").astype("datetime64[s]").astype(str).tolist()
    weather = np.where(np.isnan(hours.weather), np.array(None), hours.weather.astype(object)).tolist()
    return [
        {"time": start, "holiday": holiday, "sky": sky} | dict(zip(WEATHER, values, strict=True))
        for start, holiday, sky, values in zip(starts, hours.holiday, hours.sky, weather, strict=True)
    ]


EDGE_CASES: list[dict[str, Any]] = [dict.fromkeys(("sky", *WEATHER)), {"sky": "volcanic ash"}]


def outcomes(frame: pd.DataFrame, _p: Params) -> list[dict[str, Any]]:
    """Return what was counted, as bodies of `POST /outcomes` without an id."""
    return [{"bikers": bikers} for bikers in frame["bikers"].tolist()]


HOUR_BANDS = {"07-10": (7, 10), "10-16": (10, 16), "16-20": (16, 20)}


def slices(features: pd.DataFrame, known: Lookups) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the rows of each slice, shape (n,): kind of day, hours, sky."""
    free, hour, sky = (features[name].to_numpy() for name in ("free_day", "hour", "sky"))
    bands = {f"hour={name}": (hour >= first) & (hour < last) for name, (first, last) in HOUR_BANDS.items()}
    skies = {f"sky={word}": sky == code for code, word in enumerate(known.vocabularies["sky"])}
    return {"day=working": free == 0, "day=free": free == 1} | bands | skies


CARD = {
    "predicts": f"The probability that {BUSY} or more bicycles are rented in an hour, from its time and its weather.",
    "data": "Hourly counts of Capital Bikeshare in Washington, D.C., as the package ISLP contains them.",
    "intervals": "Hours of one day share their weather, so whole days are resampled.",
    "scenarios": "The model is tested with the weather that was observed in the hour, which is a perfect forecast.",
    "limits": "One year of a growing rental: in the same weather, autumn has more riders than spring.",
}
