"""featurize: no column known only after departure can reach a feature."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from app.interface import Request
from app.model.bundle import to_flights
from stages import params
from stages.errors import DataInvalid
from stages.featurize import DAY, FEATURES, TARGET, features, repair
from stages.problem import raw as data
from stages.problem.raw import RawTables
from stages.problem.table import columns, lookups, requests, rows
from tests.conftest import ROOT

AFTER_DEPARTURE = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time", "tailnum"]


@pytest.fixture(scope="module")
def raw() -> RawTables:
    """A week of flights with its weather, as it is in the data."""
    tables = data.load(ROOT / "data")
    flights = tables.flights[(tables.flights["month"] == 7) & (tables.flights["day"] <= 7)].reset_index(drop=True)
    return RawTables(flights, tables.weather, tables.planes, tables.airports, tables.airlines)


@pytest.fixture(scope="module")
def p() -> params.FeaturizeParams:
    """The parameters of the project."""
    return params.load(ROOT / "params.yaml").featurize


def test_scrambling_what_is_known_after_departure_changes_no_feature(raw: RawTables, p: params.FeaturizeParams) -> None:
    tables = fit_tables(raw, np.ones(len(raw.flights), dtype=bool), p)
    scrambled = raw.flights.copy()
    rng = np.random.default_rng(0)
    for column in AFTER_DEPARTURE:
        scrambled[column] = rng.permutation(scrambled[column].to_numpy())
    before = features(raw.flights, raw.weather, tables, p)
    after = features(scrambled, raw.weather, tables, p)
    pd.testing.assert_frame_equal(before[[*FEATURES, DAY]], after[[*FEATURES, DAY]])
    assert (before[TARGET] != after[TARGET]).any()
    without = features(
        raw.flights.drop(columns=[c for c in AFTER_DEPARTURE if c != "arr_delay"]), raw.weather, tables, p
    )
    pd.testing.assert_frame_equal(before, without)


def test_late_cancelled_and_diverted_flights_are_not_on_time() -> None:
    flights = pd.DataFrame({"arr_delay": [-20, 14, 15, 300, np.nan]})
    assert target(flights, 15).tolist() == [0, 0, 1, 1, 1]


def test_requests_made_from_rows_have_the_features_of_the_rows(raw: RawTables, p: params.FeaturizeParams) -> None:
    tables = fit_tables(raw, np.ones(len(raw.flights), dtype=bool), p)
    rows = raw.flights.iloc[::100]
    requests = json.loads(json.dumps(as_requests(as_columns(rows, raw.weather, tables))))
    columns = to_flights([Request.model_validate(request) for request in requests])
    expected = as_columns(rows, raw.weather, tables)
    assert columns.departure.tolist() == expected.departure.tolist()
    assert columns.arrival.tolist() == expected.arrival.tolist()
    assert columns.weather.tobytes() == np.ascontiguousarray(expected.weather).tobytes()


def test_older_weather_is_the_weather_of_earlier_hours(raw: RawTables, p: params.FeaturizeParams) -> None:
    tables = fit_tables(raw, np.ones(len(raw.flights), dtype=bool), p)
    now, older = (features(raw.flights.iloc[-50:], raw.weather, tables, p, age) for age in (0, 3))
    row = raw.flights.iloc[-1]
    at = raw.weather[
        (raw.weather["origin"] == row["origin"])
        & (raw.weather["time_hour"] == row["time_hour"] - pd.Timedelta(hours=3))
    ]
    assert older["temperature_f"].iloc[-1] == at["temp"].iloc[0]
    assert now["departure_minute"].equals(older["departure_minute"])


def test_a_repair_that_fits_no_row_is_an_error(raw: RawTables) -> None:
    with pytest.raises(DataInvalid, match="is 0 rows.*dvc repro validate"):
        repair(raw, [{"table": "flights", "action": "drop", "key": {"year": "1999"}}])


def test_repairs_empty_cells_and_drop_rows(raw: RawTables) -> None:
    hour = {"origin": "EWR", "time_hour": str(raw.weather["time_hour"].iloc[0])}
    key = {c: str(raw.flights[c].iloc[3]) for c in ("year", "month", "day", "carrier", "flight", "origin")}
    repaired = repair(
        raw,
        [
            {"table": "weather", "action": "null", "column": "temp", "key": hour},
            {"table": "flights", "action": "drop", "key": key},
        ],
    )
    assert np.isnan(repaired.weather["temp"].iloc[0]) and not np.isnan(raw.weather["temp"].iloc[0])
    assert len(repaired.flights) == len(raw.flights) - 1
