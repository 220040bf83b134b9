"""featurize: no column known only after departure can reach a feature."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from app.interface import FEATURE_NAMES, Request
from app.problem.features import arrays_of_requests
from stages import interface, params
from stages.base.errors import ParamsInvalid
from stages.features.compute import Counts, compute_features
from stages.features.feature_files import DAY, TARGET
from stages.features.samples import golden_requests
from stages.problem import Params
from stages.problem.rows import labelled_rows, lookups
from stages.problem_kit.rules import Tables
from stages.tables.partitions import split
from stages.tables.read import load_tables
from stages.tables.repairs import repair
from tests.conftest import ROOT

AFTER_DEPARTURE = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"]


@pytest.fixture(scope="module")
def raw() -> Tables:
    """A week of flights with its weather, as it is in the data."""
    tables = load_tables(ROOT / "data")
    flights = tables["flights"]
    return tables | {"flights": flights[(flights["month"] == 7) & (flights["day"] <= 7)].reset_index(drop=True)}


@pytest.fixture(scope="module")
def p() -> Params:
    """The parameters of the project."""
    return params.load(ROOT / "params.yaml").problem


def test_later_facts_change_no_feature(raw: Tables, p: Params) -> None:
    known = lookups(raw, [raw["flights"]], p)
    scrambled = raw["flights"].copy()
    rng = np.random.default_rng(0)
    for column in AFTER_DEPARTURE:
        scrambled[column] = rng.permutation(scrambled[column].to_numpy())
    before = compute_features(labelled_rows(raw, p), raw, known, p)
    after = compute_features(labelled_rows(raw | {"flights": scrambled}, p), raw, known, p)
    pd.testing.assert_frame_equal(before[[*FEATURE_NAMES, DAY]], after[[*FEATURE_NAMES, DAY]])
    assert (before[TARGET] != after[TARGET]).any()
    reduced = raw["flights"].drop(columns=[c for c in AFTER_DEPARTURE if c != "arr_delay"])
    pd.testing.assert_frame_equal(before, compute_features(labelled_rows(raw | {"flights": reduced}, p), raw, known, p))


def test_late_cancelled_diverted_are_positive(raw: Tables, p: Params) -> None:
    flights = raw["flights"].head(5).assign(arr_delay=[-20, 14, 15, 300, np.nan])
    assert labelled_rows(raw | {"flights": flights}, p).target.tolist() == [0, 0, 1, 1, 1]


def test_requests_have_the_features_of_their_rows(raw: Tables, p: Params) -> None:
    known = lookups(raw, [raw["flights"]], p)
    expected = interface.arrays_of_rows(raw["flights"].iloc[::100], raw, known, p)
    bodies = json.loads(json.dumps(interface.requests(expected)))
    sent = arrays_of_requests([Request.model_validate(body) for body in bodies])
    assert sent.departure.tolist() == expected.departure.tolist()
    assert sent.arrival.tolist() == expected.arrival.tolist()
    assert sent.weather.tobytes() == np.ascontiguousarray(expected.weather).tobytes()


def test_older_weather_is_the_weather_of_earlier_hours(raw: Tables, p: Params) -> None:
    known, last = lookups(raw, [raw["flights"]], p), labelled_rows(raw, p)
    last = last.where(np.arange(len(last)) >= len(last) - 50)
    now, older = (compute_features(last, raw, known, p, scenario) for scenario in ("", "weather 3 h old"))
    row, weather = raw["flights"].iloc[-1], raw["weather"]
    hour = row["time_hour"] - pd.Timedelta(hours=3)
    at = weather[(weather["origin"] == row["origin"]) & (weather["time_hour"] == hour)]
    assert older["temperature_f"].iloc[-1] == at["temp"].iloc[0]
    assert now["departure_minute"].equals(older["departure_minute"])


@pytest.mark.parametrize("golden_rows", [1, 100_000])
def test_golden_requests_need_enough_rows(raw: Tables, p: Params, golden_rows: int) -> None:
    changed = params.load(ROOT / "params.yaml").featurize.model_copy(update={"golden_rows": golden_rows})
    store, counts = split(raw, p), [Counts(len(raw["flights"]), 1, 0)]
    with pytest.raises(ParamsInvalid, match=rf"featurize\.golden_rows is {golden_rows}, must be 2 "):
        golden_requests(store, counts, lookups(raw, [raw["flights"]], p), changed, p)


def test_repairs_empty_cells_and_drop_rows(raw: Tables) -> None:
    hour = {"origin": "EWR", "time_hour": str(raw["weather"]["time_hour"].iloc[0])}
    key = {c: str(raw["flights"][c].iloc[3]) for c in ("year", "month", "day", "carrier", "flight", "origin")}
    weather, matches = repair(raw["weather"], [{"action": "null", "column": "temp", "key": hour}])
    assert np.isnan(weather["temp"].iloc[0]) and not np.isnan(raw["weather"]["temp"].iloc[0]) and matches == [1]
    flights, matches = repair(
        raw["flights"], [{"action": "drop", "key": key}, {"action": "drop", "key": {"year": "1999"}}]
    )
    assert len(flights) == len(raw["flights"]) - 1 and matches == [1, 0]
