"""How the real model behaves: what must raise the risk does, and what it does not know does no harm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.interface import Request
from app.model import bundles
from tests.conftest import Clone

pytestmark = pytest.mark.long

CALM: dict[str, Any] = {
    "temperature_f": 60.0,
    "dew_point_f": 40.0,
    "humidity_pct": 48.0,
    "wind_direction_deg": 270.0,
    "wind_speed_mph": 6.0,
    "wind_gust_mph": None,
    "precipitation_in": 0.0,
    "pressure_mb": 1020.0,
    "visibility_mi": 10.0,
}
WORSE: dict[str, dict[str, Any]] = {
    "rain": {"precipitation_in": 0.3},
    "fog": {"visibility_mi": 0.5},
    "storm": {"wind_speed_mph": 35.0, "wind_gust_mph": 50.0},
    "thunderstorm": {"precipitation_in": 0.4, "visibility_mi": 2.0, "wind_gust_mph": 40.0, "pressure_mb": 1002.0},
}


@pytest.fixture(scope="module")
def real(pipeline: Clone) -> bundles.Bundle:
    """The bundle of the real pipeline."""
    folder = pipeline.path / "build/bundle"
    return bundles.load(folder / bundles.MODEL_FILE, folder / bundles.MANIFEST_FILE)


def risks(bundle: bundles.Bundle, hours: list[dict[str, Any]] | None, **changes: Any) -> np.ndarray[Any, Any]:
    """Return the risk of a day's departures from each airport to four destinations, in the same weather."""
    flights = [
        Request.model_validate(
            {
                "carrier": "UA",
                "origin": origin,
                "dest": dest,
                "scheduled_departure": f"2013-10-0{day}T{hour:02d}:30:00",
                "scheduled_arrival": f"2013-10-0{day}T{hour + 2:02d}:45:00",
                "weather": hours,
            }
            | changes
        )
        for origin in ("EWR", "JFK", "LGA")
        for dest in ("ORD", "ATL", "BOS", "DFW")
        for day in range(1, 8)
        for hour in range(6, 21, 3)
    ]
    return bundle.probabilities(flights)


@pytest.mark.parametrize("weather", WORSE)
def test_worse_weather_does_not_lower_the_mean_risk(real: bundles.Bundle, weather: str) -> None:
    assert risks(real, [CALM | WORSE[weather]] * 7).mean() > risks(real, [CALM] * 7).mean()


def test_a_calm_day_is_safe_and_a_thunderstorm_is_not(real: bundles.Bundle) -> None:
    assert risks(real, [CALM] * 7).mean() < 0.2
    assert risks(real, [CALM | WORSE["thunderstorm"]] * 7).mean() > 0.4


def test_mean_risk_without_weather_is_near_the_rate(real: bundles.Bundle) -> None:
    assert 0.15 < risks(real, None).mean() < 0.4


@pytest.mark.parametrize("unknown", [{"carrier": "ZZ"}, {"dest": "XXX"}, {"carrier": "ZZ", "dest": "XXX"}])
def test_unseen_categories_get_a_plausible_risk(real: bundles.Bundle, unknown: dict[str, str]) -> None:
    apart = np.abs(risks(real, [CALM] * 7, **unknown).mean() - risks(real, [CALM] * 7).mean())
    assert apart < 0.15


def test_the_evening_is_riskier_than_the_morning(real: bundles.Bundle) -> None:
    by_hour = risks(real, [CALM] * 7).reshape(-1, 5).mean(axis=0)
    assert by_hour[0] < by_hour[-1]
