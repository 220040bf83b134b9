"""Drift: what alarms and what does not, on a made-up model; the numbers on the real one are in tests/pipeline."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift
from prometheus_client import generate_latest

from app.errors import BundleInvalid
from app.interface import CATEGORIES, FEATURE_NAMES
from app.model.bundles import REFERENCE_FILE
from app.problem.lookups import Lookups
from ops.monitoring.drift.compare import alarms, compare_window, quality
from ops.monitoring.drift.gauges import Gauges
from ops.monitoring.drift.reference import SCORE, Reference, load_reference, psi, words
from ops.monitoring.drift.report import write_html
from stages.base.paths import sha256
from stages.features.feature_files import DAY, TARGET
from stages.problem_kit.params import DriftParams

POLICY = DriftParams(
    min_rows=500,
    psi_factor=1.2,
    psi_floor=0.25,
    missing_margin=0.1,
    unseen_share=0.01,
    under_prediction=0.085,
    over_prediction=0.15,
    log_loss=0.65,
)
ROWS = 3000


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Features of 30 weeks whose temperature follows the season, with a calibrated score."""
    rng = np.random.default_rng(0)
    made = pd.DataFrame(rng.random((ROWS, len(FEATURE_NAMES))), columns=list(FEATURE_NAMES))
    for name in CATEGORIES:
        made[name] = rng.integers(0, 3, ROWS).astype(float)
    day = np.sort(rng.integers(0, 210, ROWS))
    made["temperature_f"] = 50 + 30 * np.sin(day / 60) + rng.normal(0, 4, ROWS)
    made.loc[rng.random(ROWS) < 0.2, "pressure_mb"] = np.nan
    score = rng.beta(2, 6, ROWS)
    return made.assign(**{SCORE: score, TARGET: (rng.random(ROWS) < score).astype(float), DAY: 15706 + day})


@pytest.fixture(scope="module")
def reference(frame: pd.DataFrame, tables: Lookups) -> Reference:
    """The reference, with categories as words."""
    return Reference("1", words(frame, tables.vocabularies), POLICY)


def found(reference: Reference, window: pd.DataFrame) -> list[str]:
    """Return the alerts that a window raises."""
    return sorted({alarm.kind for alarm in alarms(reference, compare_window(reference, window, window))})


def test_sample_of_the_reference_does_not_alarm(reference: Reference) -> None:
    samples = [reference.frame.sample(1000, replace=True, random_state=i) for i in range(20)]
    assert sum(bool(found(reference, sample)) for sample in samples) <= 1


def test_known_season_does_not_alarm(reference: Reference) -> None:
    summer = reference.frame[(reference.frame[DAY] - 15706).between(85, 110)]
    assert psi(reference.frame["temperature_f"], summer["temperature_f"]) > 1
    assert "FeatureDrift" not in found(reference, summer)


def test_faults_alarm(reference: Reference) -> None:
    window = reference.frame.sample(2000, replace=True, random_state=1)
    rare = np.arange(len(window)) % 50 == 0
    assert found(reference, window.assign(departure_minute=window["departure_minute"] + 0.5)) == ["FeatureDrift"]
    assert found(reference, window.assign(carrier=window["carrier"].mask(rare))) == ["UnseenCategory"]
    assert found(reference, window.assign(pressure_mb=window["pressure_mb"].mask(rare | (window.index % 2 == 0)))) == [
        "InputMissing"
    ]
    assert found(reference, window.assign(**{TARGET: 0.0})) == ["CalibrationOff"]
    assert "ScoreDrift" in found(reference, window.assign(**{SCORE: window[SCORE] / 4}))
    assert "LiveLossHigh" in found(reference, window.assign(**{TARGET: 1.0}))


def test_below_a_threshold_nothing_alarms(reference: Reference) -> None:
    window = reference.frame.sample(2000, replace=True, random_state=1)
    few = np.arange(len(window)) % 125 == 0  # 0.8 %
    assert not found(reference, window.assign(carrier=window["carrier"].mask(few)))
    for gap, alarm in ((0.14, False), (0.16, True), (-0.08, False), (-0.09, True)):
        late = round((window[SCORE].mean() - gap) * len(window))
        raised = found(reference, window.assign(**{TARGET: np.arange(len(window)) < late}))
        assert ("CalibrationOff" in raised) == alarm


def test_few_days_have_no_psi(reference: Reference) -> None:
    monday = reference.frame.sample(2000, replace=True, random_state=1).assign(
        departure_minute=600.0, pressure_mb=np.nan
    )
    late = monday.assign(**{TARGET: 1.0})
    assert found(reference, late) == ["CalibrationOff", "FeatureDrift", "InputMissing", "LiveLossHigh"]
    part = compare_window(reference, late, late, whole=False)
    assert {alarm.kind for alarm in alarms(reference, part)} == {"CalibrationOff", "InputMissing", "LiveLossHigh"}
    gauges = Gauges(60)
    gauges.found("1", part)
    assert "drift_feature_psi{" not in (text := generate_latest(gauges.registry).decode())
    assert "drift_score_psi{" not in text and "drift_missing_share{" in text and "live_log_loss{" in text


def test_columns_without_values_and_empty_windows(reference: Reference, tmp_path: Path) -> None:
    window = reference.frame.sample(600, random_state=2).assign(pressure_mb=np.nan, carrier=None)
    raised = compare_window(reference, window, window)
    assert math.isnan(raised.feature_psi["pressure_mb"]) and raised.missing["pressure_mb"] == 1
    assert found(reference, window) == ["InputMissing", "UnseenCategory"]
    assert write_html(reference, window, tmp_path, 2).stat().st_size > 100_000
    nothing = compare_window(reference, reference.frame.head(0), reference.frame.head(0))
    assert nothing.quality is None and math.isnan(nothing.score_psi)


def test_quality_waits_for_enough_outcomes(reference: Reference) -> None:
    assert compare_window(reference, reference.frame, reference.frame.head(499)).quality is None
    judged = compare_window(reference, reference.frame, reference.frame.head(500)).quality
    assert judged is not None and judged.rows == 500


def test_quality_is_what_it_says() -> None:
    judged = quality(pd.DataFrame({SCORE: [0.2, 0.8], TARGET: [0.0, 1.0]}))
    assert judged.gap == 0 and judged.observed_rate == 0.5
    assert judged.log_loss == pytest.approx(-math.log(0.8))
    assert judged.constant_log_loss == pytest.approx(math.log(2))


def test_only_the_newest_reports_are_kept(reference: Reference, tmp_path: Path) -> None:
    for day in range(4):
        (tmp_path / f"drift-2013010{day}T000000.html").write_text("old")
    written = write_html(reference, reference.frame, tmp_path, 2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["drift-20130103T000000.html", written.name]


def test_other_reference_is_refused(frame: pd.DataFrame, tables: Lookups, tmp_path: Path) -> None:
    frame.to_parquet(tmp_path / REFERENCE_FILE)
    facts = {"reference_sha256": sha256(tmp_path / REFERENCE_FILE), "lookups": tables.to_json()}
    (tmp_path / "manifest.json").write_text(json.dumps(facts))
    digest = sha256(tmp_path / "manifest.json")
    read = load_reference(tmp_path, "1", digest, POLICY)
    assert set(read.frame["carrier"]) == set(tables.vocabularies["carrier"])
    with pytest.raises(BundleInvalid, match="not match the registry"):
        load_reference(tmp_path, "1", "0" * 64, POLICY)
    frame.head(9).to_parquet(tmp_path / REFERENCE_FILE)
    with pytest.raises(BundleInvalid, match="not match the registry"):
        load_reference(tmp_path, "1", digest, POLICY)
    (tmp_path / REFERENCE_FILE).unlink()
    with pytest.raises(BundleInvalid, match="make repro"):
        load_reference(tmp_path, "1", digest, POLICY)


def test_reference_with_few_rows_a_week_has_limits(reference: Reference) -> None:
    few = Reference("1", reference.frame.iloc[:: ROWS // 100], POLICY)
    assert set(few.missing_limits) == set(FEATURE_NAMES) and few.score_limit > 0


@pytest.mark.parametrize("column", ["number", "gap", "count", "word"])
def test_psi_is_that_of_evidently(column: str) -> None:
    rng = np.random.default_rng(1)

    def frame(rows: int, shift: float, word: list[str]) -> pd.DataFrame:
        numbers = rng.normal(shift, 1, rows)
        columns = {"number": numbers, "gap": np.where(numbers > 4, np.nan, numbers), "count": rng.integers(0, 9, rows)}
        return pd.DataFrame(columns | {"word": rng.choice(word, rows)})

    reference, window = frame(20_000, 0.0, ["a", "b", "c"]), frame(900, 4.0, ["b", "c", "d"])
    definition = DataDefinition(numerical_columns=["number", "gap", "count"], categorical_columns=["word"])
    sides = [Dataset.from_pandas(side, data_definition=definition) for side in (window, reference)]
    measured = Report([ValueDrift(column=column, method="psi")]).run(*sides).dict()["metrics"][0]["value"]
    assert psi(reference[column], window[column]) == pytest.approx(measured, rel=1e-12)
