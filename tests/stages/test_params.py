"""params.yaml: strict, frozen, and an error names the key."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from stages import params
from stages.base import yaml_files
from stages.base.errors import ParamsInvalid
from stages.problem_kit.params import Coverage, FeaturizeParams


@pytest.fixture(name="text")
def real_text() -> str:
    """Return the text of params.yaml."""
    return params.PARAMS_FILE.read_text(encoding="utf-8")


def load(tmp_path: Path, text: str) -> params.Params:
    """Load parameters from a text."""
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    return params.load(path)


def test_the_real_file_is_valid_and_frozen() -> None:
    p = params.load()
    with pytest.raises(ValidationError):
        p.train.rounds = 1


@pytest.mark.parametrize(
    "old, new, key",
    [
        ("\n  rounds: ", "\n  surprise: 1\n  rounds: ", r"train\.surprise"),
        ("  rounds: ", "  rounds: many # ", r"train\.rounds"),
        ("  rounds: ", "  round: ", r"train\.rounds.*train\.round:"),
        ("  learning_rate: ", "  learning_rate: .nan # ", r"train\.learning_rate"),
        ("flights: [336776, 336776]", 'flights: [336776, "x"]', r"validate\.rows\.flights"),
        ("  first_date: ", "  first_date: soon #", r"problem\.first_date"),
        ("    flights.distance: 1", "    flights.distance: -1", r"validate\.tolerance\.flights\.distance"),
        ("\nvalidate: ", "\nvalidation: ", r"validate: .*validation:"),
        ("  rounds: ", "  rounds: 4 # ", r"train\.rounds: .*equal to 5"),
        ("  last_date: '2013-12-31'", "  last_date: 2013-12-31", r"problem\.last_date is a date.*quotes"),
        ("  years: [2012, ", "  years: [2013, ", r"problem\.years: .*must begin with 2012"),
    ],
)
def test_an_unknown_key_or_a_wrong_value_is_named(tmp_path: Path, text: str, old: str, new: str, key: str) -> None:
    assert text.count(old) == 1
    with pytest.raises(ParamsInvalid, match=rf"params\.yaml: .*{key}"):
        load(tmp_path, text.replace(old, new))


def test_periods_are_fixed_or_end_with_a_month() -> None:
    coverage = Coverage(
        first_date=date(2013, 1, 1), last_date=date(2017, 2, 20), gaps=[(date(2014, 1, 1), date(2016, 12, 31))]
    )
    samples = {"reference_rows": 1, "golden_rows": 1, "seed": 1}
    days = FeaturizeParams.model_validate(samples | {"train_days": 40, "test_days": 41})
    assert days.relative and days.periods(coverage) == (
        (date(2013, 11, 12), date(2013, 12, 21)),
        (date(2013, 12, 22), date(2017, 1, 31)),
    )
    assert days.model_copy(update={"train_days": 9999}).periods(coverage)[0][0] == date(2013, 1, 1)
    with pytest.raises(ParamsInvalid, match="396 days in complete months, featurize.test_days is 400"):
        days.model_copy(update={"test_days": 400}).periods(coverage)
    fixed = (date(2013, 1, 1), date(2013, 1, 31)), (date(2013, 2, 1), date(2013, 2, 28))
    given = {"train": fixed[0], "test": fixed[1]}
    assert FeaturizeParams.model_validate(samples | given).periods(coverage) == fixed
    for wrong in ({}, {"train": fixed[0]}, {"train_days": 3}, given | {"test_days": 3}):
        with pytest.raises(ValidationError, match="give train and test, or train_days and test_days"):
            FeaturizeParams.model_validate(samples | wrong)


@pytest.mark.parametrize(
    "old, new, reason",
    [
        ("test: ['2013-11-01'", "test: ['2013-10-31'", "overlaps featurize.test, 2013-10-31 to 2013-12-31"),
        ("train: ['2013-01-01', '2013-10-31']", "train: ['2013-12-01', '2013-12-31']", "or follows it"),
        ("test: ['2013-11-01', '2013-12-31']", "test: ['2013-12-31', '2013-11-01']", "test, .* ends before it begins"),
        (
            "train: ['2013-01-01'",
            "train: ['2012-12-31'",
            "featurize.train, .* beyond the data, 2013-01-01 to 2013-12-31",
        ),
        ("  last_date: '2013-12-31'", "  last_date: '2012-12-31'", "problem: .* leave no day with data"),
    ],
)
def test_a_window_that_cannot_be_is_refused_by_name(tmp_path: Path, text: str, old: str, new: str, reason: str) -> None:
    assert text.count(old) == 1
    with pytest.raises(ParamsInvalid, match=rf"params\.yaml: .*{reason}"):
        load(tmp_path, text.replace(old, new))


def test_a_window_may_have_a_gap_and_not_lie_in_one(tmp_path: Path, text: str) -> None:
    gap = "  gaps: [['2013-11-20', '2013-12-20']]\n  last_date:"
    text = text.replace("  last_date:", gap)
    assert load(tmp_path, text).test_period == (date(2013, 11, 1), date(2013, 12, 31))
    with pytest.raises(ParamsInvalid, match="featurize.test, 2013-11-20 to 2013-12-20, is empty: problem.gaps"):
        load(tmp_path, text.replace("test: ['2013-11-01', '2013-12-31']", "test: ['2013-11-20', '2013-12-20']"))


@pytest.mark.parametrize(
    ("written", "value"),
    [("010", 10), ("0o10", 8), ("1e-05", 1e-05), ("1e3", 1000.0), ("yes", "yes"), ("1_000", 1000), ("12:30", "12:30")],
)
def test_values_are_those_that_dvc_locks(tmp_path: Path, written: str, value: object) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"key: {written}\n", encoding="utf-8")
    assert yaml_files.load(path) == {"key": value} == YAML(typ="safe").load(path)


def test_a_number_that_dvc_writes_is_accepted(tmp_path: Path, text: str) -> None:
    line = next(line for line in text.splitlines() if line.startswith("  lambda_l2: "))
    assert load(tmp_path, text.replace(line, "  lambda_l2: 1e-05")).train.lambda_l2 == 1e-05


@pytest.mark.parametrize("content", ["", "- train\n", "[[a, b]]\n", "train"])
def test_a_file_without_sections_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(ParamsInvalid, match="params.yaml is empty, or has no sections"):
        load(tmp_path, content)
