"""validate: the real data passes with the known counts, and every rule has a damage that it catches."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from stages import params
from stages.base.errors import DataInvalid, ParamsInvalid
from stages.params import Params
from stages.problem.columns import TABLES
from stages.problem.rules import RULES
from stages.problem_kit.columns import spare
from stages.problem_kit.rules import Tables
from stages.tables.checks import check_tables, column_values, enforce, missing_values, row_count, tables_for
from stages.tables.read import load_tables
from stages.tables.repairs import Repairs, repair

KNOWN = {  # what the real data breaks, each counted without these rules
    "flights.distance": 1,
    "flights.hour": 1,
    "flights.dep_time.missing": 8255,
    "flights.arr_delay.missing": 9430,
    "flights.tailnum.missing": 2512,
    "flights.dest_listed": 7602,
    "flights.dest_frequent": 3,
    "flights.tailnum_known": 50094,
    "flights.plane_plausible": 2421,
    "flights.one_origin": 48,
    "flights.plane_in_one_place": 62,
    "flights.ground_speed": 3,
    "flights.long_delay": 39,
    "flights.weather_known": 1556,
    "weather.wind_speed": 1,
    "weather.wind_gust.missing": 20778,
    "weather.pressure.missing": 2729,
    "weather.every_hour": 165,
    "weather.local_hour_unique": 6,
    "weather.temp_jump": 2,
    "weather.temp_spike": 1,
    "weather.dewp_spike": 1,
    "airports.tzone.missing": 3,
    "airports.in_america": 4,
}
Damage = Callable[[Tables], Tables]


@pytest.fixture(scope="session", name="raw")
def raw_tables() -> Tables:
    """Return the real tables; without them these tests are errors."""
    return load_tables(Path("data"))


@pytest.fixture(scope="session", name="p")
def real_params() -> Params:
    """Return params.yaml."""
    return params.load()


@pytest.fixture(scope="session", name="real_report")
def report_on_the_real_data(raw: Tables, p: Params) -> dict[str, Any]:
    """Return the report on the real tables."""
    return check_tables(raw, p)


@pytest.fixture(scope="session", name="week")
def one_week(raw: Tables) -> Tables:
    """Return the tables with the flights and the weather of 16 to 22 January."""

    def cut(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[(frame["month"] == 1) & frame["day"].between(16, 22)].reset_index(drop=True)

    return raw | {"flights": cut(raw["flights"]), "weather": cut(raw["weather"])}


@pytest.fixture(scope="session", name="week_params")
def params_of_the_week(p: Params, week: Tables) -> Params:
    """Return params.yaml with the period and the numbers of rows of that week."""
    rows = {table: (len(week[table]),) * 2 for table in TABLES}
    period = {"first_date": date(2013, 1, 16), "last_date": date(2013, 1, 22)}
    return p.model_copy(
        update={
            "problem": p.problem.model_copy(update=period),
            "validate_": p.validate_.model_copy(update={"rows": rows}),
        }
    )


def rule(report: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a rule's part of the report."""
    (found,) = [r for r in report["rules"] if r["name"] == name]
    return dict(found)


def put(table: str, rows: int | slice, **values: Any) -> Damage:
    """Return a damage that writes values into the first rows (or a slice of positions) of a table."""

    def damage(t: Tables) -> Tables:
        frame = t[table].copy()
        for column, value in values.items():
            frame.iloc[slice(rows) if isinstance(rows, int) else rows, frame.columns.get_loc(column)] = value
        return t | {table: frame}

    return damage


def put_where(table: str, where: str, rows: int, **values: Any) -> Damage:
    """Return a damage that writes values into the first rows in which the column `where` is not missing."""

    def damage(t: Tables) -> Tables:
        frame = t[table].copy()
        frame.loc[frame.index[frame[where].notna()][:rows], list(values)] = list(values.values())
        return t | {table: frame}

    return damage


def repeat(table: str, rows: int, **values: Any) -> Damage:
    """Return a damage that appends the first rows again, with some other values."""

    def damage(t: Tables) -> Tables:
        frame = t[table]
        return t | {table: pd.concat([frame, frame.head(rows).assign(**values)], ignore_index=True)}

    return damage


def lose(table: str, keep: str) -> Damage:
    """Return a damage that keeps only the rows of a query."""
    return lambda t: t | {table: t[table].query(keep).reset_index(drop=True)}


def warm(column: str) -> Damage:
    """Return a damage that makes two lone hours 60 °F warmer."""

    def damage(t: Tables) -> Tables:
        frame = t["weather"].copy()
        frame.loc[[10, 20], column] += 60
        return t | {"weather": frame}

    return damage


def shift(table: str) -> Damage:
    """Return a damage that moves `time_hour` of three rows by five hours, as if local time were taken for UTC."""

    def damage(t: Tables) -> Tables:
        frame = t[table].copy()
        frame.loc[:2, "time_hour"] -= pd.Timedelta(hours=5)
        return t | {table: frame}

    return damage


DAMAGES: dict[str, tuple[Damage, int]] = {  # by rule: what breaks it, and in how many places
    "flights.key_unique": (repeat("flights", 3), 3),
    "flights.in_period": (put("flights", 3, month=2), 3),
    "flights.every_day": (lose("flights", "day != 22"), 1),
    "flights.day_size": (lose("flights", "day != 18 or flight < 1000"), 1),
    "flights.time_zone": (shift("flights"), 3),
    "flights.schedule_split": (put("flights", 3, sched_dep_time=2330), 3),
    "flights.departure_delay": (put_where("flights", "dep_delay", 3, dep_delay=1234.0), 3),
    "flights.arrival_delay": (put_where("flights", "arr_delay", 3, arr_delay=1234.0), 3),
    "flights.departed_or_not": (put_where("flights", "dep_time", 3, dep_delay=None), 3),
    "flights.arrived_or_not": (put_where("flights", "air_time", 3, air_time=None), 3),
    "flights.observed": (
        put_where("flights", "arr_time", 3, dep_time=None, dep_delay=None, air_time=None, tailnum=None),
        3,
    ),
    "flights.arrival_order": (put_where("flights", "arr_time", 3, dep_time=None), 3),
    "flights.tailnum_of_departed": (put_where("flights", "dep_time", 3, tailnum=None), 3),
    "flights.carrier_known": (put("flights", 3, carrier="ZZ"), 3),
    "flights.origin_known": (lose("airports", "faa != 'LGA'"), -1),
    "flights.dest_known": (put("flights", 3, dest="XXX"), 3),
    "flights.dest_placed": (put("flights", 3, dest="EEN"), 3),
    "flights.route_length": (put("flights", 1, distance=5555), 1),
    "flights.tailnum_known": (lose("planes", "tailnum == 'N10156'"), -1),
    "flights.dest_listed": (put("flights", slice(None), dest="SJU"), -1),
    "flights.dest_frequent": (put("flights", 3, dest="FCA"), -1),
    "flights.plane_plausible": (put("planes", slice(None), seats=4), -1),
    "flights.one_origin": (repeat("flights", 3, origin="LGA"), -1),
    "flights.plane_in_one_place": (repeat("flights", 3, flight=9999), -1),
    "flights.ground_speed": (put_where("flights", "air_time", 3, air_time=800.0), -1),
    "flights.long_delay": (put("flights", 3, arr_delay=700.0), -1),
    "flights.weather_known": (lose("weather", "day != 17"), -1),
    "weather.hour_unique": (repeat("weather", 3), 3),
    "weather.local_hour_unique": (repeat("weather", 3), 6),
    "weather.local_time": (shift("weather"), 3),
    "weather.within_period": (put("weather", 3, month=2), 3),
    "weather.every_hour": (lose("weather", "day != 17"), 72),
    "weather.dewp_below_temp": (put("weather", 3, dewp=80.0), 3),
    "weather.humidity_units": (put("weather", slice(None), dewp=-3.0, temp=2.0), 7),
    "weather.gust_above_wind": (put("weather", 3, wind_gust=0.5, wind_speed=9.0), 3),
    "weather.temp_jump": (warm("temp"), 4),
    "weather.temp_spike": (warm("temp"), 2),
    "weather.dewp_spike": (warm("dewp"), 2),
    "planes.built_before": (put("planes", 3, year=2031.0), 3),
    "airports.in_america": (put("airports", 3, tzone="Europe/Rome"), -1),
}


def repaired_tables(tables: Tables, items: Repairs) -> Tables:
    """Return tables with their repairs."""
    own = {name: [item for item in items if item["table"] == name] for name in tables}
    return {name: repair(frame, own[name])[0] for name, frame in tables.items()}


def test_real_data_keep_every_rule_within_tolerance(real_report: dict[str, Any]) -> None:
    enforce(real_report)
    assert (real_report["failed"], real_report["not_run"]) == (0, [])


def test_real_data_break_known_rules_as_often_as_known(real_report: dict[str, Any]) -> None:
    assert {name: rule(real_report, name)["violating"] for name in KNOWN} == KNOWN


def test_only_known_rules_are_broken(real_report: dict[str, Any]) -> None:
    broken = {r["name"] for r in real_report["rules"] if r["violating"] and not r["name"].endswith(".missing")}
    assert broken <= KNOWN.keys()


def test_each_repair_changes_exactly_one_row(raw: Tables, p: Params, real_report: dict[str, Any]) -> None:
    repaired = repaired_tables(raw, real_report["repairs"])
    changed = {(r["table"], r["action"], r.get("column")) for r in real_report["repairs"]}
    nulls = {("weather", "null", column) for column in ("wind_speed", "temp", "dewp")}
    assert changed == {("flights", "drop", None)} | nulls and len(real_report["repairs"]) == 4
    assert len(repaired["flights"]) == len(raw["flights"]) - 1
    cells = repaired["weather"].isna().sum().sum() - raw["weather"].isna().sum().sum()
    assert cells == 3
    assert not check_tables(repaired, p)["repairs"]


def test_a_week_of_the_data_keeps_every_rule(week: Tables, week_params: Params) -> None:
    enforce(check_tables(week, week_params))


def test_every_rule_between_columns_has_a_damage() -> None:
    assert {r.name for r in RULES} == DAMAGES.keys()


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_is_caught_by_its_rule(week: Tables, week_params: Params, name: str) -> None:
    (one,) = [r for r in RULES if r.name == name]
    damage, expected = DAMAGES[name]
    before, after = (int(one.broken(tables_for(one, t), week_params.problem).sum()) for t in (week, damage(week)))
    assert after == expected if expected >= 0 else after > before
    assert before < after


@pytest.mark.parametrize("name", [f"{table}.{column}" for table, names in TABLES.items() for column in names])
def test_column_out_of_range_or_pattern_is_caught(week: Tables, p: Params, name: str) -> None:
    table, column = name.split(".")
    frame = week[table].head(10)
    spoilt = -9999 if pd.api.types.is_numeric_dtype(frame[column]) else None if column == "time_hour" else " "
    frame = put(table, 5, **{column: spoilt})(week | {table: frame})
    (found,) = [o for o in column_values(frame[table], table, p) if o.name == name]
    assert (found.status, found.violating) == ("fail", 5)


@pytest.mark.parametrize("name", sorted(params.load().validate_.missing_share))
def test_too_many_missing_values_are_caught(week: Tables, p: Params, name: str) -> None:
    table, column = name.split(".")
    frame = put(table, slice(None), **{column: float("nan")})(week)[table]
    (found,) = [o for o in missing_values(frame, table, p) if o.name == f"{name}.missing"]
    assert found.status == ("warn" if spare(TABLES[table][column]) else "fail")


@pytest.mark.parametrize("table", TABLES)
def test_a_lost_row_is_caught(week: Tables, week_params: Params, table: str) -> None:
    assert row_count(len(week[table]) - 1, table, week_params).status == "fail"


@pytest.mark.parametrize("column, change", [("carrier", "drop"), ("distance", "text"), ("distance", "extra")])
def test_a_missing_mistyped_or_unknown_column_fails(
    week: Tables, week_params: Params, column: str, change: str
) -> None:
    flights = {
        "drop": lambda f: f.drop(columns=column),
        "text": lambda f: f.astype({column: str}),
        "extra": lambda f: f.assign(extra=1),
    }[change](week["flights"])
    report = check_tables(week | {"flights": flights}, week_params)
    expected = {
        "drop": {"flights.columns", "flights.carrier"},
        "text": {"flights.distance"},
        "extra": {"flights.columns"},
    }
    assert {r["name"] for r in report["rules"] if r["status"] == "fail"} == expected[change]
    assert bool(report["not_run"]) == (change != "extra")


def test_violations_beyond_tolerance_fail(week: Tables, week_params: Params) -> None:
    report = check_tables(put("weather", 2, wind_speed=1048.0)(week), week_params)
    assert rule(report, "weather.wind_speed")["status"] == "fail" and not report["repairs"]
    with pytest.raises(
        DataInvalid, match=r"weather\.wind_speed \(2 of 504, at most 1 allowed, for example origin=EWR .*json"
    ):
        enforce(report)


def test_tolerated_violations_pass_and_are_repaired(week: Tables, week_params: Params) -> None:
    damaged = put("weather", 1, wind_speed=1048.0)(week)
    report = check_tables(damaged, week_params)
    assert rule(report, "weather.wind_speed")["status"] == "pass" and len(report["repairs"]) == 1
    assert repaired_tables(damaged, report["repairs"])["weather"]["wind_speed"].isna().iloc[0]


@pytest.mark.parametrize("key, value", [("tolerance", {"flights.rows": 1}), ("missing_share", {"flights.typo": 0.1})])
def test_tolerance_for_an_unknown_rule_is_named(
    week: Tables, week_params: Params, key: str, value: dict[str, Any]
) -> None:
    wrong = week_params.model_copy(update={"validate_": week_params.validate_.model_copy(update={key: value})})
    with pytest.raises(ParamsInvalid, match=rf"unknown names under validate\.{key}: {next(iter(value))}"):
        check_tables(week, wrong)


def test_the_report_is_the_same_every_time(week: Tables, week_params: Params) -> None:
    assert check_tables(week, week_params) == check_tables(week, week_params)
