"""Dates and hours of the raw tables: local where they are written as year, month, day and hour, UTC in `time_hour`."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd

from stages.problem.params import Params

LOCAL = "America/New_York"  # the time zone of every local time in the tables, but for those of arrivals


def local_dates(frame: pd.DataFrame) -> pd.Series:
    """Return the local dates of rows; NaT where there is no such day."""
    return pd.to_datetime(frame[["year", "month", "day"]], errors="coerce").rename("date")


def local_hours(frame: pd.DataFrame) -> pd.Series:
    """Return `time_hour`, in UTC, as local times without a zone."""
    return frame["time_hour"].dt.tz_convert(LOCAL).dt.tz_localize(None)


def minutes(hhmm: pd.Series) -> pd.Series:
    """Return minutes after midnight of clock times written as HHMM."""
    return hhmm // 100 * 60 + hhmm % 100


def period(p: Params) -> pd.DatetimeIndex:
    """Return the local dates that the tables cover."""
    return pd.date_range(p.first_date, p.last_date, name="date")


def hours_expected(origins: list[str], p: Params) -> pd.MultiIndex:
    """Return (origin, time_hour in UTC) of every hour of the period."""
    days = period(p)
    hours = pd.date_range(days[0], days[-1] + timedelta(days=1), freq="h", inclusive="left", tz=LOCAL).tz_convert("UTC")
    return pd.MultiIndex.from_product([origins, hours], names=["origin", "time_hour"])
