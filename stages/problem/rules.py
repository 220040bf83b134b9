"""The rules between columns, rows and tables; columns.py has the rules of single columns."""

from __future__ import annotations

import numpy as np
import pandas as pd

from stages.problem.columns import KEYS
from stages.problem.params import Params
from stages.problem.times import hours_expected, local_dates, local_hours, minutes, period
from stages.problem_kit.rules import Flags, Rules, Tables

MAX_JUMP_F = 25.0  # °F in an hour; larger changes are implausible
REPAIRS = {
    "flights.distance": {"action": "drop"},
    "flights.hour": {"action": "drop"},
    "weather.wind_speed": {"action": "null", "column": "wind_speed"},
    "weather.temp_spike": {"action": "null", "column": "temp"},
    "weather.dewp_spike": {"action": "null", "column": "dewp"},
}
"""Repairs by rule: drop the row, or set a cell to null."""

RULES = Rules()
rule = RULES.add


def hourly_change(weather: pd.DataFrame, column: str, hours: int) -> pd.Series:
    """Return the difference to the value `hours` later (earlier if negative) at the same origin; NaN without one."""
    values = weather.drop_duplicates(KEYS["weather"]).set_index(KEYS["weather"])[column]
    keys = pd.MultiIndex.from_arrays([weather["origin"], weather["time_hour"] + pd.Timedelta(hours=hours)])
    return pd.Series(values.reindex(keys).to_numpy() - weather[column].to_numpy(), index=weather.index)


def spikes(weather: pd.DataFrame, column: str) -> Flags:
    """Return which hours differ from both neighbours by more than MAX_JUMP_F, in the same direction."""
    before, after = hourly_change(weather, column, -1), hourly_change(weather, column, 1)
    return (before.abs() > MAX_JUMP_F) & (after.abs() > MAX_JUMP_F) & (before * after > 0)


@rule("flights")
def key_unique(t: Tables, _: Params) -> Flags:
    """No two flights have the same date, carrier, number and origin."""
    return t["flights"].duplicated(KEYS["flights"])


@rule("flights")
def in_period(t: Tables, p: Params) -> Flags:
    """Every flight leaves on a day of the period."""
    return ~local_dates(t["flights"]).isin(period(p))


@rule("flights")
def every_day(t: Tables, p: Params) -> Flags:
    """Every day of the period has flights, the first and the last one too."""
    days = period(p)
    return pd.Series(~days.isin(local_dates(t["flights"])), index=days)


@rule("flights", "warning")
def day_size(t: Tables, p: Params) -> Flags:
    """No day has unusually few or many flights."""
    return ~local_dates(t["flights"]).value_counts(sort=False).between(*p.flights_per_day)


@rule("flights")
def time_zone(t: Tables, _: Params) -> Flags:
    """`time_hour` in New York's time is year, month, day and hour."""
    return local_hours(t["flights"]) != local_dates(t["flights"]) + pd.to_timedelta(t["flights"]["hour"], unit="h")


@rule("flights")
def schedule_split(t: Tables, _: Params) -> Flags:
    """`hour` and `minute` are those of `sched_dep_time`."""
    return t["flights"]["hour"] * 100 + t["flights"]["minute"] != t["flights"]["sched_dep_time"]


@rule("flights")
def departure_delay(t: Tables, _: Params) -> Flags:
    """The delay of a departure is the actual less the scheduled time, modulo a day."""
    late = minutes(t["flights"]["dep_time"]) - minutes(t["flights"]["sched_dep_time"]) - t["flights"]["dep_delay"]
    return late.fillna(0) % 1440 != 0


@rule("flights")
def arrival_delay(t: Tables, _: Params) -> Flags:
    """The delay of an arrival is the actual less the scheduled time, modulo a day."""
    late = minutes(t["flights"]["arr_time"]) - minutes(t["flights"]["sched_arr_time"]) - t["flights"]["arr_delay"]
    return late.fillna(0) % 1440 != 0


def unobserved(flights: pd.DataFrame) -> pd.Series:
    """Return a mask of the flights for which only the arrival is known (reported outcomes)."""
    return flights[["dep_time", "dep_delay", "air_time", "tailnum"]].isna().all(axis=1)


@rule("flights")
def departed_or_not(t: Tables, _: Params) -> Flags:
    """`dep_time` is missing exactly where `dep_delay` is: the flight was cancelled."""
    return t["flights"]["dep_time"].isna() != t["flights"]["dep_delay"].isna()


@rule("flights")
def arrived_or_not(t: Tables, _: Params) -> Flags:
    """`air_time` is missing exactly where `arr_delay` is (cancelled, diverted), or only the arrival is known."""
    f = t["flights"]
    return (f["air_time"].isna() != f["arr_delay"].isna()) & ~unobserved(f)


@rule("flights")
def arrival_order(t: Tables, _: Params) -> Flags:
    """No flight arrives that did not depart, and none has a delay on arrival without a time of arrival."""
    f = t["flights"]
    departed = f["dep_time"].notna() | unobserved(f)
    return ~departed & f["arr_time"].notna() | f["arr_time"].isna() & f["arr_delay"].notna()


@rule("flights", "warning")
def observed(t: Tables, _: Params) -> Flags:
    """Of every flight that arrived, more is known than the arrival."""
    return unobserved(t["flights"]) & t["flights"]["arr_delay"].notna()


@rule("flights")
def tailnum_of_departed(t: Tables, _: Params) -> Flags:
    """Only a cancelled flight lacks a tail number, which is why no feature may use it."""
    return t["flights"]["tailnum"].isna() & t["flights"]["dep_time"].notna()


@rule("flights", "warning")
def carrier_known(t: Tables, _: Params) -> Flags:
    """Every carrier is in the table of airlines; to a model, another one is an unknown category."""
    return ~t["flights"]["carrier"].isin(t["airlines"]["carrier"])


@rule("flights")
def origin_known(t: Tables, _: Params) -> Flags:
    """Every origin is in the table of airports."""
    return ~t["flights"]["origin"].isin(t["airports"]["faa"])


@rule("flights")
def dest_known(t: Tables, p: Params) -> Flags:
    """Every destination is in the table of airports, or among problem.extra_airports in params.yaml."""
    return ~t["flights"]["dest"].isin([*t["airports"]["faa"], *p.extra_airports])


@rule("flights", "warning")
def dest_listed(t: Tables, _: Params) -> Flags:
    """Every destination is in the table of airports itself."""
    return ~t["flights"]["dest"].isin(t["airports"]["faa"])


@rule("flights")
def dest_placed(t: Tables, _: Params) -> Flags:
    """No flight goes to an airport that the table puts east of Greenwich or in no time zone."""
    misplaced = t["airports"]["tzone"].isna() | (t["airports"]["lon"] > 0)
    return t["flights"]["dest"].isin(t["airports"].loc[misplaced, "faa"])


@rule("flights", "warning", across=["dest"])
def dest_frequent(t: Tables, _: Params) -> Flags:
    """Every destination has at least ten flights; of fewer a model can learn little."""
    return t["flights"].groupby("dest")["rows"].sum() < 10


@rule("flights", across=["origin", "dest", "distance"])
def route_length(t: Tables, _: Params) -> Flags:
    """The distance of a route is the same for all flights, to a mile."""
    distance = t["flights"].groupby(["origin", "dest"])["distance"]
    return distance.max() - distance.min() > 1


@rule("flights", "warning")
def tailnum_known(t: Tables, _: Params) -> Flags:
    """Every tail number is in the table of planes."""
    return t["flights"]["tailnum"].notna() & ~t["flights"]["tailnum"].isin(t["planes"]["tailnum"])


@rule("flights", "warning")
def plane_plausible(t: Tables, _: Params) -> Flags:
    """No scheduled flight is made by a plane of fewer than 20 seats."""
    return t["flights"]["tailnum"].isin(t["planes"].loc[t["planes"]["seats"] < 20, "tailnum"])


@rule("flights", "warning")
def one_origin(t: Tables, _: Params) -> Flags:
    """A carrier's number leaves from one origin a day."""
    return t["flights"].duplicated(["year", "month", "day", "carrier", "flight"], keep=False)


@rule("flights", "warning")
def plane_in_one_place(t: Tables, _: Params) -> Flags:
    """No plane is scheduled twice at the same time."""
    return t["flights"]["tailnum"].notna() & t["flights"].duplicated(["tailnum", "time_hour", "minute"], keep=False)


@rule("flights", "warning")
def ground_speed(t: Tables, _: Params) -> Flags:
    """Distance over time in the air is 80 to 650 miles an hour."""
    return ~(t["flights"]["distance"] / t["flights"]["air_time"] * 60).fillna(400).between(80, 650)


@rule("flights", "warning")
def long_delay(t: Tables, _: Params) -> Flags:
    """No flight arrives more than ten hours late."""
    return t["flights"]["arr_delay"] > 600


@rule("flights", "warning")
def weather_known(t: Tables, _: Params) -> Flags:
    """Every flight has weather at its origin in the scheduled hour."""
    flown, observed = (pd.MultiIndex.from_frame(frame[KEYS["weather"]]) for frame in (t["flights"], t["weather"]))
    return pd.Series(~flown.isin(observed), index=t["flights"].index)


@rule("weather")
def hour_unique(t: Tables, _: Params) -> Flags:
    """No two observations have the same origin and hour in UTC."""
    return t["weather"].duplicated(KEYS["weather"])


@rule("weather", "warning")
def local_hour_unique(t: Tables, _: Params) -> Flags:
    """No two observations have the same origin and local hour, as they do when clocks go back."""
    return t["weather"].duplicated(["origin", "year", "month", "day", "hour"], keep=False)


@rule("weather")
def local_time(t: Tables, _: Params) -> Flags:
    """`time_hour` in New York's time is year, month, day and hour."""
    return local_hours(t["weather"]) != local_dates(t["weather"]) + pd.to_timedelta(t["weather"]["hour"], unit="h")


@rule("weather")
def within_period(t: Tables, p: Params) -> Flags:
    """Every observation is of an hour of the period."""
    return ~local_dates(t["weather"]).isin(period(p))


@rule("weather", "warning")
def every_hour(t: Tables, p: Params) -> Flags:
    """Every hour of the period has an observation at every origin."""
    expected = hours_expected(sorted(t["flights"]["origin"].unique()), p)
    return pd.Series(~expected.isin(pd.MultiIndex.from_frame(t["weather"][KEYS["weather"]])), index=expected)


@rule("weather")
def dewp_below_temp(t: Tables, _: Params) -> Flags:
    """The dew point is not above the temperature."""
    return t["weather"]["dewp"] > t["weather"]["temp"]


@rule("weather")
def humidity_units(t: Tables, _: Params) -> Flags:
    """On every day, humidity is what temperature and dew point imply (Magnus), to one point in the median."""
    w = t["weather"]

    def pressure(fahrenheit: pd.Series) -> pd.Series:
        celsius = (fahrenheit - 32) / 1.8
        return np.exp(17.625 * celsius / (243.04 + celsius))

    error = (100 * pressure(w["dewp"]) / pressure(w["temp"]) - w["humid"]).abs()
    return error.groupby(local_dates(w)).median() > 1


@rule("weather")
def gust_above_wind(t: Tables, _: Params) -> Flags:
    """Gusts are not slower than the wind."""
    return t["weather"]["wind_gust"] < t["weather"]["wind_speed"]


@rule("weather", "warning", reach=1)
def temp_jump(t: Tables, _: Params) -> Flags:
    """The temperature changes by at most 25 °F from one hour to the next."""
    return hourly_change(t["weather"], "temp", -1).abs() > MAX_JUMP_F


@rule("weather", reach=1)
def temp_spike(t: Tables, _: Params) -> Flags:
    """No temperature is more than 25 °F off both neighbouring hours."""
    return spikes(t["weather"], "temp")


@rule("weather", reach=1)
def dewp_spike(t: Tables, _: Params) -> Flags:
    """No dew point is more than 25 °F off both neighbouring hours."""
    return spikes(t["weather"], "dewp")


@rule("planes")
def built_before(t: Tables, p: Params) -> Flags:
    """No plane is younger than the data."""
    return t["planes"]["year"] > p.last_date.year


@rule("airports", "warning")
def in_america(t: Tables, _: Params) -> Flags:
    """Every airport lies west of Greenwich and in a time zone of America or the Pacific."""
    zone = t["airports"]["tzone"]
    return (t["airports"]["lon"] > 0) | ~(zone.isna() | zone.str.startswith(("America/", "Pacific/")))
