"""New rows: every damage of a file has its outcome, nothing is lost, and nothing is half added."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ops.data import growth, incoming
from stages import params
from stages.base.errors import DataInvalid
from stages.params import Params
from stages.problem.columns import TABLES
from stages.problem_kit.params import Coverage
from stages.problem_kit.rules import Tables
from stages.tables.checks import check_tables
from stages.tables.read import absorb

Frame = pd.DataFrame


@pytest.fixture(scope="module", name="month")
def text_of_january() -> dict[str, Frame]:
    """Return the tables as text, as they are in files; a quarter of the flights and the weather of January only."""
    found = {}
    for table in TABLES:
        frame = pd.read_csv(f"data/{table}.csv", dtype=str, keep_default_na=False, nrows=27_000)
        found[table] = (
            frame[frame["month"] == "1"].iloc[:: 4 if table == "flights" else 1] if "month" in frame else frame
        )
    return found


def between(tables: dict[str, Frame], first: int, last: int) -> dict[str, Frame]:
    """Return the rows of some days of January."""
    dated = {table: frame for table, frame in tables.items() if "day" in frame}
    return {t: f[f["day"].astype(int).between(first, last)].reset_index(drop=True) for t, f in dated.items()}


@pytest.fixture(scope="module", name="known")
def first_data(month: dict[str, Frame]) -> Tables:
    """Return the tables of January 11 to 20."""
    tables = month | between(month, 11, 20)
    return {table: incoming.convert(frame.replace("NA", None), table)[0] for table, frame in tables.items()}


@pytest.fixture(scope="module", name="p")
def first_params(known: Tables) -> Params:
    """Return the parameters of the first data."""
    p = params.load()
    problem = p.problem.model_copy(update={"first_date": date(2013, 1, 11), "last_date": date(2013, 1, 20)})
    rows = {table: (len(known[table]),) * 2 for table in TABLES}
    validate = p.validate_.model_copy(update={"rows": rows, "tolerance": {}})
    return p.model_copy(update={"problem": problem, "validate_": validate})


@pytest.fixture(scope="module", name="week")
def incoming_week(month: dict[str, Frame]) -> dict[str, Frame]:
    """Return flights and weather of January 21 to 27."""
    return between(month, 21, 27)


def write(folder: Path, tables: dict[str, Frame]) -> list[incoming.Incoming]:
    """Write tables as CSV files and read them as new rows."""
    found = []
    for table, frame in tables.items():
        path = folder / f"{table}-2013-01.csv"
        frame.to_csv(path, index=False)
        found.append(incoming.read(path))
    return found


def test_clean_week_is_added_and_keeps_every_rule(
    known: Tables, week: dict[str, Frame], p: Params, tmp_path: Path
) -> None:
    verdict = growth.judge_addition(known, write(tmp_path, week), p)
    assert {t: (a.new, len(a.corrections), a.known, a.repeated) for t, a in verdict.arrivals.items()} == {
        "flights": (len(week["flights"]), 0, 0, 0),
        "weather": (len(week["weather"]), 0, 0, 0),
    }
    assert verdict.p.problem.last_date == date(2013, 1, 27) and not verdict.p.problem.gaps
    whole = known | {t: absorb([known[t], a.typed], growth.KEYS[t])[0] for t, a in verdict.arrivals.items()}
    assert check_tables(whole, verdict.p)["failed"] == 0
    again = growth.judge_addition(whole, write(tmp_path, week), verdict.p)
    assert not again.changes and again.p == verdict.p
    assert {t: a.known for t, a in again.arrivals.items()} == {t: len(f) for t, f in week.items()}


def change(table: str, column: str, function: Callable[[Any], Any], rows: slice = slice(None)) -> Callable[..., Any]:
    """Return a damage that changes the values of a column that are not missing."""

    def damage(tables: dict[str, Frame]) -> dict[str, Frame]:
        frame = tables[table].copy()
        values = frame.loc[frame.index[rows], column]
        frame.loc[frame.index[rows], column] = values.where(
            values == "NA", values.map(lambda v: v if v == "NA" else str(function(v)))
        )
        return tables | {table: frame}

    return damage


def hours_later(text: str) -> str:
    """Return a time one hour later."""
    return f"{pd.Timestamp(text) + pd.Timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"


def celsius(text: str) -> float:
    """Return degrees Fahrenheit as degrees Celsius."""
    return round((float(text) - 32) / 1.8, 2)


def some_long(cases: dict[str, Any], *plain: str) -> list[Any]:
    """Return the names of the cases; most are long tests."""
    return [name if name in plain else pytest.param(name, marks=pytest.mark.long) for name in cases]


REFUSED = {
    "a shifted clock": (
        change("flights", "time_hour", hours_later),
        r"flights-2013-01\.csv: .* break flights.time_zone",
    ),
    "a shifted clock of the weather": (change("weather", "time_hour", hours_later), r"weather\.local_time"),
    "degrees Celsius": (change("weather", "temp", celsius), r"weather\.dewp_below_temp"),
    "pressure in inches": (change("weather", "pressure", lambda v: float(v) / 33.86), r"weather\.pressure"),
    "half of the rows of another year": (
        change("flights", "year", lambda _: 2012, slice(0, 800)),
        "flights.in_period",
    ),
    "keys twice with other values": (
        lambda t: t
        | {
            "flights": pd.concat(
                [t["flights"], change("flights", "dep_delay", lambda v: int(v) + 1)(t)["flights"][:500]]
            )
        },
        r"flights\.key",
    ),
}


@pytest.mark.parametrize("damage", some_long(REFUSED, "a shifted clock"))
def test_too_many_bad_rows_refuse_the_file(
    damage: str, known: Tables, week: dict[str, Frame], p: Params, tmp_path: Path
) -> None:
    function, rule = REFUSED[damage]
    with pytest.raises(DataInvalid, match=rule) as caught:
        growth.judge_addition(known, write(tmp_path, function(week)), p)
    assert "nothing was added" in str(caught.value) and "growth.max_quarantined" in str(caught.value)


QUARANTINED = {
    "rows of 2012": (change("flights", "year", lambda _: 2012, slice(0, 20)), "flights.in_period", 20),
    "rows far ahead": (
        lambda t: change("flights", "time_hour", lambda v: v.replace("2013", "2031"), slice(0, 20))(
            change("flights", "year", lambda _: 2031, slice(0, 20))(t)
        ),
        "flights.in_period",
        20,
    ),
    "a few keys twice with other values": (
        lambda t: t
        | {
            "flights": pd.concat([t["flights"], change("flights", "dep_delay", lambda v: int(v) + 1)(t)["flights"][:9]])
        },
        "flights.key",
        18,
    ),
    "text in a number": (change("flights", "dep_time", lambda _: "noon", slice(0, 7)), "flights.dep_time", 7),
    "a missing whole number": (
        change("flights", "sched_dep_time", lambda _: "", slice(0, 3)),
        "flights.sched_dep_time",
        3,
    ),
    "a value out of range": (change("weather", "wind_speed", lambda _: 1048.0, slice(3, 4)), "weather.wind_speed", 1),
    "no time": (change("weather", "time_hour", lambda _: "yesterday", slice(0, 2)), "weather.time_hour", 2),
}


@pytest.mark.parametrize("damage", some_long(QUARANTINED, "rows of 2012", "rows far ahead"))
def test_single_bad_rows_go_to_quarantine_unchanged(
    damage: str, known: Tables, week: dict[str, Frame], p: Params, tmp_path: Path
) -> None:
    function, rule, number = QUARANTINED[damage]
    damaged = function(week)
    verdict = growth.judge_addition(known, write(tmp_path, damaged), p)
    table = rule.split(".")[0]
    arrival = verdict.arrivals[table]
    quarantined = arrival.quarantined
    assert quarantined["rule"].value_counts()[rule] == number
    expected = damaged[table].iloc[quarantined["row"] - 1].replace(["NA", ""], None)
    kept = quarantined[list(expected)].astype(object)
    assert kept.where(kept.notna(), None).to_numpy().tolist() == expected.to_numpy().tolist()
    counted = arrival.new + len(arrival.corrections) + arrival.known + arrival.repeated + len(quarantined)
    assert counted == len(arrival.raw) == len(damaged[table])
    assert verdict.p.validate_.rows[table] == (len(known[table]) + arrival.new,) * 2
    assert verdict.p.problem.last_date == date(2013, 1, 27) and not verdict.p.problem.gaps


def test_exact_repetitions_are_counted_and_added_once(
    known: Tables, week: dict[str, Frame], p: Params, tmp_path: Path
) -> None:
    twice = week | {"flights": pd.concat([week["flights"], week["flights"][:300]])}
    arrival = growth.judge_addition(known, write(tmp_path, twice), p).arrivals["flights"]
    assert (arrival.new, arrival.repeated, len(arrival.quarantined)) == (len(week["flights"]), 300, 0)


def test_changed_value_is_a_correction_in_its_place(
    known: Tables, month: dict[str, Frame], p: Params, tmp_path: Path
) -> None:
    corrected = between(month, 11, 11)["weather"].iloc[[7]].assign(visib="3")
    verdict = growth.judge_addition(known, write(tmp_path, {"weather": corrected}), p)
    arrival = verdict.arrivals["weather"]
    assert arrival.corrections == ["origin=EWR time_hour=2013-01-11 12:00:00+00:00: visib 10.0 -> 3.0"]
    assert arrival.new == 0 and verdict.changes and verdict.p == p
    whole, _ = absorb([known["weather"], arrival.typed], growth.KEYS["weather"])
    assert whole["visib"].tolist()[:9] == [*known["weather"]["visib"].tolist()[:7], 3.0, known["weather"]["visib"][8]]
    assert len(whole) == len(known["weather"])


@pytest.mark.parametrize(
    ("column", "value", "rule"), [("wind_speed", "1048", "weather.wind_speed"), ("day", "12", "weather.day")]
)
def test_invalid_correction_is_quarantined(
    known: Tables, month: dict[str, Frame], p: Params, tmp_path: Path, column: str, value: str, rule: str
) -> None:
    corrected = between(month, 11, 12)["weather"].iloc[:40].copy()
    corrected.loc[corrected.index[7], column] = value
    arrival = growth.judge_addition(
        known,
        write(tmp_path, {"weather": corrected}),
        p.model_copy(update={"growth": p.growth.model_copy(update={"max_quarantined": 0.1})}),
    ).arrivals["weather"]
    assert arrival.quarantined["rule"].tolist() == [rule]
    assert (arrival.known, arrival.new, arrival.corrections) == (39, 0, [])


@pytest.mark.long
def test_wrong_unit_across_columns_refuses_the_files(
    known: Tables, week: dict[str, Frame], p: Params, tmp_path: Path
) -> None:
    metric = change("weather", "dewp", celsius)(change("weather", "temp", celsius)(week))
    with pytest.raises(DataInvalid, match=r"nothing was added: .*weather\.humidity_units \(7 of 17"):
        growth.judge_addition(known, write(tmp_path, metric), p)


@pytest.mark.long
def test_a_missing_day_refuses_the_files(known: Tables, week: dict[str, Frame], p: Params, tmp_path: Path) -> None:
    holed = {table: frame[frame["day"] != "24"] for table, frame in week.items()}
    with pytest.raises(DataInvalid, match=r"flights\.every_day \(1 of 17: date=2013-01-24\)"):
        growth.judge_addition(known, write(tmp_path, holed), p)
    with pytest.raises(DataInvalid, match=r"flights\.every_day"):
        growth.judge_addition(known, write(tmp_path, {"weather": week["weather"]}), p)


def test_days_after_a_gap_are_added_with_the_gap(
    known: Tables, week: dict[str, Frame], p: Params, tmp_path: Path
) -> None:
    late = {table: frame[frame["day"].astype(int) >= 25] for table, frame in week.items()}
    verdict = growth.judge_addition(known, write(tmp_path, late), p)
    assert verdict.p.problem.gaps == [(date(2013, 1, 21), date(2013, 1, 24))]
    whole = known | {t: absorb([known[t], a.typed], growth.KEYS[t])[0] for t, a in verdict.arrivals.items()}
    assert check_tables(whole, verdict.p)["failed"] == 0
    filled = growth.judge_addition(whole, write(tmp_path, week), verdict.p)
    assert filled.p.problem.gaps == [] and filled.arrivals["flights"].known == len(late["flights"])


@pytest.mark.long
def test_another_unit_within_the_range_is_a_warning(
    known: Tables, week: dict[str, Frame], p: Params, tmp_path: Path
) -> None:
    found = growth.judge_addition(known, write(tmp_path, week), p).warnings
    assert "weather.wind_speed.shift" not in found
    metres = change("weather", "wind_speed", lambda v: float(v) * 0.447)(week)
    assert "weather.wind_speed.shift" in growth.judge_addition(known, write(tmp_path, metres), p).warnings


CSV = b"carrier,name\nZ1,First\nZ2,Second\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("airlines.csv", b"", "is empty"),
        ("airlines.csv", b"carrier,name\n", "has a header and no rows"),
        ("airlines.csv", CSV[:-4], "ends within line 3"),
        ("airlines.csv", b"carrier,name\nZ1,First\nZ2\n", "line 3 has 1 fields"),
        ("airlines.csv", CSV.replace(b"Second", b"Caf\xe9"), "line 3: byte 0xe9 is not UTF-8.*iconv"),
        ("airlines.csv", b"carrier,name,country\nZ1,First,US\n", "has country besides"),
        ("airlines.csv", b"carrier\nZ1\n", "lacks name"),
        ("airlines.csv.gz", gzip.compress(CSV, mtime=0)[:-9], "cut off or damaged"),
        ("airlines.csv.gz", CSV, "cut off or damaged"),
        ("airlines.parquet", b"PAR1 and nothing else", "not a complete Parquet file"),
        ("hotels.csv", CSV, "must begin with a table"),
        ("airlines.xlsx", CSV, r"end in \.csv"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataInvalid, match=message) as caught:
        incoming.read(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_all_forms_of_a_file_give_the_same_rows(week: dict[str, Frame], tmp_path: Path) -> None:
    frame = week["weather"]
    plain, zipped, columnar = (tmp_path / f"weather-1.{form}" for form in ("csv", "csv.gz", "parquet"))
    frame.to_csv(plain, index=False)
    frame.to_csv(zipped, index=False)
    read = pd.read_csv(plain, parse_dates=["time_hour"])
    read.astype({"wind_dir": "Int32", "hour": "int8"}).to_parquet(columnar)
    first = incoming.read(plain).typed
    for path in (zipped, columnar):
        pd.testing.assert_frame_equal(incoming.read(path).typed, first)
    with_mark = tmp_path / "weather-2.csv"
    with_mark.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes().replace(b"\n", b"\r\n"))
    pd.testing.assert_frame_equal(incoming.read(with_mark).typed, first)


def test_complete_months_end_where_a_day_is_missing() -> None:
    coverage = Coverage(first_date=date(2013, 1, 10), last_date=date(2013, 4, 29))
    assert coverage.complete_months()[-1] == date(2013, 3, 31)
    holed = coverage.model_copy(update={"gaps": [(date(2013, 3, 5), date(2013, 3, 5))]})
    assert holed.complete_months()[-1] == date(2013, 2, 28)
    assert Coverage(first_date=date(2013, 1, 10), last_date=date(2013, 1, 31)).complete_months() == []
