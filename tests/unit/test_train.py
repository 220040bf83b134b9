"""Training's pure parts: the threshold, the folds, the missing weather."""

from __future__ import annotations

import numpy as np
import pytest

from app.interface import FEATURE_NAMES, members, without
from stages.errors import DataInvalid
from stages.rows import month_of
from stages.train import choose_threshold


def test_months_of_days_are_those_of_the_calendar() -> None:
    days = np.array(["2013-01-01", "2013-01-31", "2013-02-01", "2013-12-31"], dtype="datetime64[D]").astype(np.int64)
    assert month_of(days).tolist() == [1, 1, 2, 12]


def test_the_threshold_is_the_lowest_with_the_precision_asked_for() -> None:
    probability = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    target = np.array([1, 1, 0, 1, 0, 0], dtype=np.int8)
    assert choose_threshold(target, probability, "precision", 0.75) == 0.6
    assert choose_threshold(target, probability, "precision", 0.5) == 0.4


def test_the_threshold_raises_the_share_of_alerts_asked_for() -> None:
    probability = np.linspace(0, 1, 1001)
    threshold = choose_threshold(np.zeros(1001, dtype=np.int8), probability, "alert_share", 0.2)
    assert (probability >= threshold).mean() == pytest.approx(0.2, abs=0.002)


def test_a_precision_that_no_threshold_has_is_an_error_that_names_the_parameter() -> None:
    with pytest.raises(DataInvalid, match=r"train\.threshold_value"):
        choose_threshold(np.zeros(5, dtype=np.int8), np.linspace(0, 1, 5), "precision", 0.5)


def test_without_weather_masks_all_weather_and_nothing_else() -> None:
    features = np.ones((3, len(FEATURE_NAMES)))
    masked = without("weather", features)
    weather = [i in members("weather") for i in range(len(FEATURE_NAMES))]
    assert np.isnan(masked[:, weather]).all() and (masked[:, ~np.array(weather)] == 1).all()
    assert (features == 1).all()
