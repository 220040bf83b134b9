"""Dates and times of the raw tables: local in year, month, day and hour; UTC in `time_hour`."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd

from stages.problem.params import Params

LOCAL = "America/New_York"  # the zone of all local times but arrivals


def local_dates(frame: pd.DataFrame) -> pd.Series:
    """Return the local date of each row; NaT for an invalid date."""
    return pd.to_datetime(frame[["year", "month", "day"]], errors="coerce").rename("date")


def days(table: str, frame: pd.DataFrame, _: Params) -> pd.Series | None:
    """Return the local date of each row, NaT for an invalid one; None for a table without dates."""
    return local_dates(frame) if table in ("flights", "weather") else None


def local_hours(frame: pd.DataFrame) -> pd.Series:
    """Return `time_hour` converted from UTC to naive local times."""
    return frame["time_hour"].dt.tz_convert(LOCAL).dt.tz_localize(None)


def minutes(hhmm: pd.Series) -> pd.Series:
    """Convert clock times (HHMM) to minutes after midnight."""
    return hhmm // 100 * 60 + hhmm % 100


def period(p: Params) -> pd.DatetimeIndex:
    """Return the local dates that the tables cover."""
    return pd.DatetimeIndex(p.days(), name="date")


def hours_expected(origins: list[str], p: Params) -> pd.MultiIndex:
    """Return (origin, time_hour in UTC) of every hour of the period."""
    days = period(p)
    hours = pd.date_range(days[0], days[-1] + timedelta(days=1), freq="h", inclusive="left", tz=LOCAL)
    hours = hours[hours.tz_localize(None).floor("D").isin(days)].tz_convert("UTC")  # pylint: disable=no-member
    return pd.MultiIndex.from_product([origins, hours], names=["origin", "time_hour"])
