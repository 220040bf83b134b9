"""Raw rows of recorded requests: what comes back of the rows that were sent, what is missing, what is quarantined."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app.interface import EXAMPLE, Lookups, Outcome, Request, compute
from ops.data import growth, incoming, journal_rows
from stages import interface, params
from stages.base.errors import DataInvalid
from stages.params import Params
from stages.problem.columns import KEYS, TABLES
from stages.problem_kit.rules import Tables

FIRST, SPLIT, LAST = date(2013, 1, 11), 16, 20
ABSENT = {"dep_time", "dep_delay", "air_time", "tailnum"}


def some_days(tables: Tables, first: int, last: int) -> Tables:
    """Return the tables with the rows of some days of January, every fourth flight."""
    found = dict(tables)
    for table in ("flights", "weather"):
        frame = tables[table]
        frame = frame[(frame["month"] == 1) & frame["day"].between(first, last)]
        found[table] = frame.iloc[:: 4 if table == "flights" else 1].reset_index(drop=True)
    return found


@pytest.fixture(scope="module", name="raw")
def ten_days() -> Tables:
    """Return the tables of January 11 to 20."""
    texts = {t: pd.read_csv(f"data/{t}.csv", dtype=str, keep_default_na=False, nrows=27_000) for t in TABLES}
    return some_days({t: incoming.convert(f.replace("NA", None), t)[0] for t, f in texts.items()}, FIRST.day, LAST)


@pytest.fixture(scope="module", name="p")
def first_params(raw: Tables) -> Params:
    """Return the parameters of January 11 to 15."""
    p, known = params.load(), some_days(raw, FIRST.day, SPLIT - 1)
    problem = p.problem.model_copy(update={"first_date": FIRST, "last_date": date(2013, 1, SPLIT - 1)})
    rows = {table: (len(known[table]),) * 2 for table in TABLES}
    return p.model_copy(
        update={"problem": problem, "validate_": p.validate_.model_copy(update={"rows": rows, "tolerance": {}})}
    )


@pytest.fixture(scope="module", name="lookups")
def all_lookups(raw: Tables, p: Params) -> Lookups:
    """Return the lookups of these days."""
    return interface.lookups(raw, [raw["flights"]], p.problem)


def recorded(frame: pd.DataFrame, raw: Tables, lookups: Lookups, p: Params) -> tuple[list[Request], list[Outcome]]:
    """Return flights as requests and outcomes."""
    bodies = interface.requests(interface.arrays_of_rows(frame, raw, lookups, p.problem))
    told = interface.outcomes(frame, p.problem)
    return [Request.model_validate(body) for body in bodies], [
        Outcome.model_validate({"prediction_id": "0" * 32} | outcome) for outcome in told
    ]


def test_what_was_sent_comes_back(raw: Tables, lookups: Lookups, p: Params) -> None:
    assert interface.raw_rows
    known, sent = some_days(raw, FIRST.day, SPLIT - 1), raw["flights"][raw["flights"]["day"] >= SPLIT]
    made = interface.raw_rows(*recorded(sent, raw, lookups, p), raw)
    files = [incoming.Incoming(t, t, made[t], *incoming.convert(made[t], t)) for t in ("flights", "weather")]
    assert not any(len(file.mistyped) for file in files)
    flights, weather = (file.typed for file in files)
    same = [name for name in TABLES["flights"] if name not in ABSENT | {"arr_time"}]
    pd.testing.assert_frame_equal(flights[same], sent[same].reset_index(drop=True))
    landed = sent["arr_delay"].notna().to_numpy()
    assert flights["arr_time"][landed].tolist() == sent["arr_time"][landed].tolist()
    assert flights[list(ABSENT)].isna().all(axis=None)
    assert interface.labelled_rows(raw | {"flights": flights}, p.problem).target.tolist() == (
        interface.labelled_rows(raw | {"flights": sent}, p.problem).target.tolist()
    )
    observed = raw["weather"][raw["weather"]["day"] >= SPLIT]
    both = weather.merge(observed, on=KEYS["weather"], suffixes=("", "_observed"))
    assert len(both) == len(weather) > 0.9 * len(observed)
    for name in TABLES["weather"]:
        if name not in KEYS["weather"]:
            np.testing.assert_array_equal(both[name], both[f"{name}_observed"])
    grown = raw | {"flights": flights, "weather": pd.concat([known["weather"], weather], ignore_index=True)}
    again = compute(interface.arrays_of_rows(flights, grown, lookups, p.problem), lookups)
    assert again.tobytes() == compute(interface.arrays_of_rows(sent, raw, lookups, p.problem), lookups).tobytes()


def test_the_rules_let_them_pass_as_warnings(raw: Tables, lookups: Lookups, p: Params) -> None:
    assert interface.raw_rows
    known = some_days(raw, FIRST.day, SPLIT - 1)
    known = {table: incoming.convert(frame, table)[0] for table, frame in known.items()}
    sent = raw["flights"][raw["flights"]["day"] >= SPLIT]
    made = interface.raw_rows(*recorded(sent, raw, lookups, p), raw)
    files = [incoming.Incoming(t, t, made[t], *incoming.convert(made[t], t)) for t in ("flights", "weather")]
    verdict = growth.judge_addition(known, files, p, corrects=False)
    assert verdict.arrivals["flights"].new == len(sent) and verdict.p.problem.last_date == date(2013, 1, LAST)
    arrived = int(sent["arr_delay"].notna().sum())
    assert verdict.warnings["flights.observed"] == f"{arrived:,} of {len(sent):,} rows"


def test_a_known_row_stays_as_it_is(raw: Tables, lookups: Lookups, p: Params) -> None:
    assert interface.raw_rows
    known = {t: incoming.convert(f, t)[0] for t, f in some_days(raw, FIRST.day, SPLIT - 1).items()}
    made = interface.raw_rows(*recorded(known["flights"], known, lookups, p), known)
    files = [incoming.Incoming(t, t, made[t], *incoming.convert(made[t], t)) for t in ("flights", "weather")]
    assert len(growth.judge_addition(known, files, p).arrivals["flights"].corrections) == len(known["flights"])
    verdict = growth.judge_addition(known, files, p, corrects=False)
    assert not verdict.changes
    assert {t: a.known for t, a in verdict.arrivals.items()} == {f.table: len(f.typed) for f in files}


def rows_of(*told: tuple[dict[str, Any], dict[str, Any]]) -> Tables:
    """Return the raw rows of changes to the example and their outcomes."""
    assert interface.raw_rows
    requests = [Request.model_validate(EXAMPLE | {"flight_number": 7} | body) for body, _ in told]
    outcomes = [Outcome.model_validate({"prediction_id": "0" * 32} | outcome) for _, outcome in told]
    known = {"flights": pd.DataFrame({"origin": ["EWR"], "dest": ["SFO"], "distance": [2565]})}
    return dict(interface.raw_rows(requests, outcomes, known))


def test_last_report_of_flight_and_hour_counts() -> None:
    cold = [EXAMPLE["weather"][0] | {"temperature_f": 60.0}]
    made = rows_of(({}, {"delay_minutes": 5}), ({"weather": cold}, {"delay_minutes": 31}))
    assert made["flights"]["arr_delay"].tolist() == [31] and made["flights"]["arr_time"].tolist() == [2200]
    assert made["weather"]["temp"].tolist() == [60.0]
    assert made["weather"]["time_hour"].tolist() == [pd.Timestamp("2013-07-01T22:00Z")]


@pytest.mark.parametrize(
    ("body", "outcome", "delay", "time"),
    [
        ({}, {"delay_minutes": 151}, 151, 2400),
        ({}, {"delay_minutes": -20}, -20, 2109),
        ({}, {"status": "cancelled"}, None, None),
        ({}, {"status": "diverted"}, None, None),
    ],
)
def test_an_outcome_is_written_as_the_table_has_it(
    body: dict[str, Any], outcome: dict[str, Any], delay: float | None, time: float | None
) -> None:
    flight = rows_of((body, outcome))["flights"].astype(object).replace(np.nan, None).iloc[0]
    assert (flight["arr_delay"], flight["arr_time"]) == (delay, time)


@pytest.mark.parametrize(
    ("change", "rule"),
    [({"flight_number": None}, "flights.flight"), ({"dest": "XXX"}, "flights.distance")],
)
def test_row_without_a_required_value_is_quarantined(change: dict[str, Any], rule: str) -> None:
    made = rows_of((change, {"delay_minutes": 5}))
    assert incoming.convert(made["flights"], "flights")[1].tolist() == [rule]


def test_weather_is_taken_of_flown_days_only() -> None:
    hours = [{"temperature_f": 40.0 + i} for i in range(6)] + [{}]
    night = {"scheduled_departure": "2013-03-10T03:10:00", "scheduled_arrival": "2013-03-10T06:00:00"}
    made = rows_of((night | {"weather": hours}, {"delay_minutes": 5}))["weather"]
    assert made[["hour", "temp"]].to_numpy().tolist() == [[1, 45], [0, 44]]  # 2 o'clock did not exist


def test_flights_without_weather_are_rows_as_well() -> None:
    made = rows_of(
        ({"weather": None}, {"delay_minutes": 5}), ({"weather": [{}], "flight_number": 8}, {"delay_minutes": 5})
    )
    assert len(made["flights"]) == 2 and made["weather"].empty


def test_the_hour_that_occurs_twice_is_quarantined() -> None:
    night = {"scheduled_departure": "2013-11-03T01:10:00", "scheduled_arrival": "2013-11-03T06:00:00"}
    made = rows_of((night, {"delay_minutes": 5}))
    assert made["flights"]["time_hour"].isna().tolist() == [True] and made["weather"].empty


def test_a_problem_may_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "raw_rows", None)
    with pytest.raises(DataInvalid, match="does not define raw_rows.*docs/adapt.md.*add files"):
        journal_rows.collect_rows("sqlite://", None)
