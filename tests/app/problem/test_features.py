"""The feature function: its values by hand, and properties that hold for every flight."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, strategies

from app.interface import EXAMPLE, FEATURE_NAMES, FEATURES, Request
from app.model.bundles import Bundle
from app.problem.features import arrays_of_requests, compute, compute_one
from app.problem.lookups import Lookups
from app.problem.request import WEATHER

HOUR = {
    "temperature_f": 50.0,
    "dew_point_f": 40.0,
    "humidity_pct": 70.0,
    "wind_direction_deg": 90.0,
    "wind_speed_mph": 10.0,
    "wind_gust_mph": None,
    "precipitation_in": 0.1,
    "pressure_mb": 1000.0,
    "visibility_mi": 9.0,
}
BOUNDS = {
    "temperature_f": (-60, 140),
    "dew_point_f": (-80, 100),
    "humidity_pct": (0, 100),
    "wind_direction_deg": (0, 360),
    "wind_speed_mph": (0, 200),
    "wind_gust_mph": (0, 250),
    "precipitation_in": (0, 20),
    "pressure_mb": (850, 1100),
    "visibility_mi": (0, 100),
}


def features_of(tables: Lookups, **changes: Any) -> dict[str, float]:
    """Return the features of the example flight with changes, by name."""
    row = compute(arrays_of_requests([Request.model_validate(EXAMPLE | changes)]), tables)
    assert row.shape == (1, len(FEATURE_NAMES))
    return dict(zip(FEATURE_NAMES, row[0].tolist(), strict=True))


@strategies.composite
def flights(draw: strategies.DrawFn) -> dict[str, Any]:
    """Any valid request."""
    departure = draw(strategies.datetimes(datetime(2012, 1, 1), datetime.now() + timedelta(days=365)))
    hour = strategies.fixed_dictionaries(
        {}, optional={n: strategies.none() | strategies.floats(low, high) for n, (low, high) in BOUNDS.items()}
    )
    return {
        "carrier": draw(strategies.sampled_from(["AA", "UA", "ZZ"])),
        "origin": draw(strategies.sampled_from(["EWR", "JFK", "LGA"])),
        "dest": draw(strategies.sampled_from(["SFO", "PHX", "SJU", "XXX"])),
        "scheduled_departure": departure.isoformat(),
        "scheduled_arrival": (departure + timedelta(minutes=draw(strategies.integers(1, 1440)))).isoformat(),
        "weather": draw(strategies.none() | strategies.lists(hour, min_size=1, max_size=7)),
    }


def test_schedule_features_across_time_zones(tables: Lookups) -> None:
    row = features_of(tables, scheduled_departure="2013-07-03T18:15:00", scheduled_arrival="2013-07-03T21:29:00")
    assert row["carrier"] == 2 and row["origin"] == 0 and row["dest"] == 1
    assert row["departure_minute"] == 18 * 60 + 15 and row["arrival_minute"] == 21 * 60 + 29
    assert row["block_minutes"] == 194 + 180
    assert row["distance_mi"] == pytest.approx(2565, abs=10)
    assert row["scheduled_mph"] == row["distance_mi"] / (374 / 60)
    assert row["day_of_week"] == 2
    assert row["holiday_distance_days"] == 1


def test_block_minutes_follow_daylight_saving(tables: Lookups) -> None:
    summer = features_of(
        tables, dest="PHX", scheduled_departure="2013-07-10T08:00:00", scheduled_arrival="2013-07-10T10:00:00"
    )
    winter = features_of(
        tables, dest="PHX", scheduled_departure="2013-12-10T08:00:00", scheduled_arrival="2013-12-10T10:00:00"
    )
    assert (summer["block_minutes"], winter["block_minutes"]) == (300, 240)


@pytest.mark.parametrize("zone", ["America/New_York", "America/Los_Angeles", "America/Phoenix"])
def test_offsets_are_those_of_the_time_zone_database(tables: Lookups, zone: str) -> None:
    airport = next(i for i, (_, _, name) in enumerate(tables.airports.values()) if name == zone)
    hours = [datetime(2013, 1, 1) + timedelta(hours=h) for h in range(0, 2 * 365 * 24)]
    minutes = np.array([int((hour - datetime(1970, 1, 1)).total_seconds()) // 60 for hour in hours])
    expected = [ZoneInfo(zone).utcoffset(hour).total_seconds() / 60 for hour in hours]  # type: ignore[union-attr]
    assert tables.utc_offset(np.full(len(hours), airport), minutes).tolist() == expected


@pytest.mark.parametrize(
    ("day", "distance"),
    [("2013-07-04", 0), ("2013-07-06", -2), ("2013-07-07", -3), ("2013-11-27", 1), ("2013-11-25", 3)],
)
def test_holiday_distance_is_signed(tables: Lookups, day: str, distance: float) -> None:
    row = features_of(tables, scheduled_departure=f"{day}T12:00:00", scheduled_arrival=f"{day}T15:00:00")
    assert row["holiday_distance_days"] == distance


@pytest.mark.parametrize("day", ["2013-07-08", "2013-06-30", "2012-07-14"])
def test_far_from_a_holiday_the_distance_is_missing(tables: Lookups, day: str) -> None:
    row = features_of(tables, scheduled_departure=f"{day}T12:00:00", scheduled_arrival=f"{day}T15:00:00")
    assert np.isnan(row["holiday_distance_days"])


def test_gusts_are_the_last_reported_or_else_the_wind(tables: Lookups) -> None:
    calm = features_of(tables, weather=[HOUR, HOUR])
    assert calm["wind_gust_mph"] == calm["wind_gust_6h_mph"] == HOUR["wind_speed_mph"]
    gusty = features_of(tables, weather=[HOUR | {"wind_gust_mph": 30.0}, HOUR])
    assert gusty["wind_gust_mph"] == gusty["wind_gust_6h_mph"] == 30


def test_gap_takes_the_hour_before_else_after(tables: Lookups) -> None:
    row = features_of(
        tables,
        weather=[HOUR | {"pressure_mb": None}, HOUR, HOUR | {"pressure_mb": 990.0}, HOUR | {"pressure_mb": None}],
    )
    assert row["pressure_mb"] == 990 and row["pressure_change_6h_mb"] == -10


def test_absent_precipitation_is_not_invented(tables: Lookups) -> None:
    row = features_of(tables, weather=[HOUR | {"precipitation_in": None}, HOUR])
    assert row["precipitation_3h_in"] == row["precipitation_6h_in"] == HOUR["precipitation_in"]


def test_without_weather_its_features_are_missing(tables: Lookups) -> None:
    row = features_of(tables, weather=None)
    assert [name for name in row if np.isnan(row[name])] == [f.name for f in FEATURES if f.group == "weather"]


def test_unknown_categories_are_missing_not_wrong(tables: Lookups) -> None:
    row = features_of(tables, carrier="ZZ", dest="XXX")
    assert np.isnan([row["carrier"], row["dest"], row["block_minutes"], row["distance_mi"], row["scheduled_mph"]]).all()
    assert row["origin"] == 0


def test_weather_bounds_equal_the_schema() -> None:
    assert set(BOUNDS) == set(WEATHER)


@given(request=flights())
def test_any_valid_request_has_a_finite_probability(bundle: Bundle, request: dict[str, Any]) -> None:
    probability = bundle.probabilities([Request.model_validate(request)])
    assert probability.shape == (1,) and 0 <= probability[0] <= 1


@given(requests=strategies.lists(flights(), min_size=2, max_size=8), data=strategies.data())
def test_a_batch_is_its_singles_in_any_order(
    bundle: Bundle, requests: list[dict[str, Any]], data: strategies.DataObject
) -> None:
    flights_ = [Request.model_validate(request) for request in requests]
    rows = [compute_one(flight, bundle.lookups) for flight in flights_]
    singles = [bundle.booster.predict_single(row) for row in rows]
    order = data.draw(strategies.permutations(range(len(flights_))))
    batch = bundle.probabilities([flights_[i] for i in order])
    assert batch.tolist() == [singles[i] for i in order]


@given(requests=strategies.lists(flights(), min_size=2, max_size=8))
def test_batch_features_equal_single_ones_to_the_bit(tables: Lookups, requests: list[dict[str, Any]]) -> None:
    flights_ = [Request.model_validate(request) for request in requests]
    batch = compute(arrays_of_requests(flights_), tables)
    assert np.array([compute_one(flight, tables) for flight in flights_]).tobytes() == batch.tobytes()
    assert (
        np.concatenate([compute(arrays_of_requests([flight]), tables) for flight in flights_]).tobytes()
        == batch.tobytes()
    )
