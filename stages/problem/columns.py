"""The columns of the raw tables (type, range or pattern, uniqueness), and the keys of rows."""

from __future__ import annotations

from pandera.pandas import Check, Column

from stages.problem_kit.columns import UTC, integer, number, real, text

ORIGIN = r"^(?:EWR|JFK|LGA)$"
AIRPORT = r"^[A-Z0-9]{3}$"
CARRIER = r"^[A-Z0-9]{2}$"
TAILNUM = r"^[ND][0-9A-Z]{3,5}$"

# The columns that identify a row in messages and repairs.
KEYS = {
    "flights": ["year", "month", "day", "carrier", "flight", "origin"],
    "weather": ["origin", "time_hour"],
    "planes": ["tailnum"],
    "airports": ["faa"],
    "airlines": ["carrier"],
}


def clock(kind: str, low: int, high: int, spare: bool = False) -> Column:
    """Describe a column of clock times written as HHMM."""
    column = number(kind, low, high, Check(lambda values: values % 100 < 60))
    column.description = f"{kind}, clock times from {low} to {high} written as HHMM"
    column.metadata = {"spare": spare}
    return column


TABLES: dict[str, dict[str, Column]] = {
    "flights": {
        "year": integer(1987, 2100),
        "month": integer(1, 12),
        "day": integer(1, 31),
        "dep_time": clock("float64", 1, 2400, spare=True),  # midnight is written as 2400
        "sched_dep_time": clock("int64", 0, 2359),
        "dep_delay": real(-45, 1440, spare=True),
        "arr_time": clock("float64", 1, 2400),
        "sched_arr_time": clock("int64", 0, 2359),
        "arr_delay": real(-90, 1440),
        "carrier": text(CARRIER),
        "flight": integer(1, 9999),
        "tailnum": text(TAILNUM, spare=True),
        "origin": text(ORIGIN),
        "dest": text(AIRPORT),
        "air_time": real(10, 900, spare=True),
        "distance": integer(50, 6000),
        "hour": integer(5, 23),
        "minute": integer(0, 59),
        "time_hour": Column(UTC, description="times in UTC"),
    },
    "weather": {
        "origin": text(ORIGIN),
        "year": integer(1987, 2100),
        "month": integer(1, 12),
        "day": integer(1, 31),
        "hour": integer(0, 23),
        "temp": real(-30, 120, spare=True),
        "dewp": real(-50, 90, spare=True),
        "humid": real(0, 100, spare=True),
        "wind_dir": real(0, 360, step=10, spare=True),
        "wind_speed": real(0, 100, spare=True),
        "wind_gust": real(0, 150, spare=True),
        "precip": real(0, 5, spare=True),
        "pressure": real(940, 1060, spare=True),
        "visib": real(0, 10, spare=True),
        "time_hour": Column(UTC, description="times in UTC"),
    },
    "planes": {
        "tailnum": text(TAILNUM, unique=True),
        "year": real(1930, 2100),
        "type": text(),
        "manufacturer": text(),
        "model": text(),
        "engines": integer(1, 8),
        "seats": integer(1, 900),
        "speed": real(50, 700),
        "engine": text(),
    },
    "airports": {
        "faa": text(AIRPORT, unique=True),
        "name": text(),
        "lat": real(-90, 90),
        "lon": real(-180, 180),
        "alt": integer(-300, 15000),
        "tz": integer(-12, 14),
        "dst": text(r"^[AUN]$"),
        "tzone": text(r"^\w+/\w+"),
    },
    "airlines": {
        "carrier": text(CARRIER, unique=True),
        "name": text(),
    },
}
