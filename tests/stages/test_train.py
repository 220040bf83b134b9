"""Training's pure parts: the threshold, the folds, the missing weather."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from app.interface import FEATURE_NAMES, members, without
from app.model.bundles import Bundle
from stages import evaluate, params
from stages.base.errors import DataInvalid, ParamsInvalid
from stages.evaluation import predictions
from stages.features.feature_files import DAY, GROUP, KEY, TARGET, described
from stages.problem_kit.rows import row_keys
from stages.training.backtest import choose_threshold, folds
from stages.training.boosting import Source

P = params.load().train
KEYS_OF_TWO_ROWS = [17199355938688615897, 11758722173246518805]
"""As pandas 3 makes them: other ones with another version would make other digests of the same rows."""


def test_without_weather_masks_the_weather_alone() -> None:
    features = np.ones((3, len(FEATURE_NAMES)))
    masked = without("weather", features)
    weather = [i in members("weather") for i in range(len(FEATURE_NAMES))]
    assert np.isnan(masked[:, weather]).all() and (masked[:, ~np.array(weather)] == 1).all()
    assert (features == 1).all()


def training(first: str, last: str) -> pd.DataFrame:
    """Return the days of a period, without those of 2014 to 2016, as training rows."""
    days = pd.Series(pd.date_range(first, last, freq="D"))
    kept = days[~days.dt.year.isin([2014, 2015, 2016])]
    keys = np.arange(len(kept), dtype=np.uint64)
    day = kept.to_numpy("datetime64[D]").astype(np.int64)
    return pd.DataFrame({DAY: day, GROUP: day, KEY: keys, TARGET: keys % 2 == 0})


@pytest.mark.parametrize(
    ("last", "fold_months", "expected"),
    [
        ("2013-10-31", [5, 6, 10], ["2013-05", "2013-06", "2013-10"]),
        ("2017-03-31", [12, 3], ["2013-12", "2017-03"]),
        ("2017-03-31", 4, ["2013-12", "2017-01", "2017-02", "2017-03"]),
    ],
)
def test_folds_are_the_newest_or_the_last_months(last: str, fold_months: list[int] | int, expected: list[str]) -> None:
    found = folds(Source.frame(training("2013-01-01", last)), P.model_copy(update={"fold_months": fold_months}))
    assert [str(np.datetime64(month, "M")) for month in found] == expected


@pytest.mark.parametrize("fold_months", [[1], [5], 2])
def test_a_fold_without_earlier_rows_is_refused(fold_months: list[int] | int) -> None:
    with pytest.raises(ParamsInvalid, match="train.fold_months"):
        folds(Source.frame(training("2013-01-01", "2013-02-28")), P.model_copy(update={"fold_months": fold_months}))


def test_row_key_does_not_depend_on_its_container() -> None:
    columns = pd.DataFrame({"month": [1, 12], "number": [1545, 9], "place": ["EWR", "JFK"]})
    for types in (
        {},
        {"month": "int8", "place": "category"},
        {"number": "Int64", "place": "string"},
        {"place": object},
    ):
        assert row_keys(columns.astype(types)).tolist() == KEYS_OF_TWO_ROWS
    assert len(set(row_keys(columns[::-1])) & set(KEYS_OF_TWO_ROWS)) == 2
    assert not set(row_keys(columns.assign(number=[1546, 10]))) & set(KEYS_OF_TWO_ROWS)


def test_digest_of_rows_does_not_depend_on_order() -> None:
    rows = training("2013-01-01", "2013-01-09")
    known = described(rows)
    assert known == described(rows.sample(frac=1, random_state=1)) and known["first"] == "2013-01-01"
    assert known["sha256"] != described(rows.assign(**{TARGET: ~rows[TARGET]}))["sha256"]


def test_names_of_predictions_must_differ(bundle: Bundle) -> None:
    for name in (predictions.MODEL, predictions.LOGISTIC):
        with pytest.raises(DataInvalid, match=f"the scenarios {name} must not be named like"):
            predictions.predict(bundle, None, [name])


def test_slice_of_a_later_file_keeps_its_rows() -> None:
    parts: list[dict[str, Any]] = [{}, {"a": np.ones(2, bool)}, {"a": np.ones(3, bool), "b": np.ones(3, bool)}]
    joined = predictions._joined(parts, [1, 2, 3])  # pylint: disable=protected-access # a file at a time is not public
    assert {name: rows.tolist() for name, rows in joined.items()} == {
        "a": [False] + [True] * 5,
        "b": [False] * 3 + [True] * 3,
    }


def test_threshold_follows_its_rule() -> None:
    probability = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    target = np.array([1, 1, 0, 1, 0, 0], dtype=np.int8)
    assert choose_threshold(target, probability, "precision", 0.75) == 0.6
    assert choose_threshold(target, probability, "precision", 0.5) == 0.4
    even = np.linspace(0, 1, 1001)
    threshold = choose_threshold(np.zeros(1001, dtype=np.int8), even, "alert_share", 0.2)
    assert (even >= threshold).mean() == pytest.approx(0.2, abs=0.002)
    with pytest.raises(DataInvalid, match=r"train\.threshold_value"):
        choose_threshold(np.zeros(6, dtype=np.int8), probability, "precision", 0.5)


def test_evaluation_on_known_or_other_rows_is_refused(bundle: Bundle) -> None:
    train, test = training("2013-01-01", "2013-01-09"), training("2013-02-01", "2013-02-09")
    test[KEY] += np.uint64(len(train))
    evaluate.refuse_known(train, test)
    test.loc[3, KEY] = 5  # the same row, under another date
    with pytest.raises(DataInvalid, match="1 of 9 test rows are among the training rows, the first of 2013-02-"):
        evaluate.refuse_known(train, test)
    trained = replace(bundle, manifest={"rows": {"train": described(train)}})
    evaluate.refuse_others(train, trained)
    for other in (trained, replace(bundle, manifest={})):
        with pytest.raises(DataInvalid, match="not trained on the 9 rows, 2013-02-01 to 2013-02-09, .*dvc repro"):
            evaluate.refuse_others(test, other)
