"""Drift on the real model: samples are silent, faults and the December storms are not, and a window is cheap."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sqlalchemy import insert

from app.errors import BundleInvalid, ModelUnavailable
from app.interface import CATEGORIES, FEATURE_NAMES
from app.journal.blocks import block, layout
from app.journal.database import JournalInvalid, JournalMissing, connect, prepare
from app.journal.tables import blocks, layouts, outcomes, schema
from app.model.bundles import Bundle
from app.model.prediction import Predictions, new_ids
from app.model.served import ServedModel
from ops.monitoring.drift.compare import Alarm, AlarmKind
from ops.monitoring.drift.journal import outcomes_since, read_window
from ops.monitoring.drift.monitor import DriftSettings, Monitor
from ops.monitoring.drift.reference import SCORE, Reference
from ops.studies import drift
from ops.training import retraining
from stages import params
from stages.features.feature_files import TARGET
from stages.tracking.mlflow_runs import DIGEST_TAG
from tests.conftest import Clone

STORMS = ("2013-12-06", "2013-12-13", "2013-12-20")


@pytest.fixture(scope="module")
def real(pipeline: Clone) -> Iterator[tuple[Reference, Bundle]]:
    """The reference and the model of the real pipeline, in whose folder the test runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pipeline.path)
        yield drift.reference_of()


def names(alarms: list[Alarm]) -> set[AlarmKind]:
    """Return the kinds of alarms."""
    return {alarm.kind for alarm in alarms}


@pytest.mark.long
def test_samples_of_the_reference_hardly_alarm(real: tuple[Reference, Bundle]) -> None:
    samples = drift.resampled(real[0], 100, drift.WINDOW_ROWS)
    assert sum(bool(drift.beyond(real[0], sample)) for sample in samples) <= 5


@pytest.mark.long
def test_injected_faults_alarm(real: tuple[Reference, Bundle]) -> None:
    number = drift.most_important_number()
    found = {fault: names(drift.beyond(real[0], window)) for fault, window in drift.faults(real[0], number)}
    assert found == {
        "shifted": {AlarmKind.FEATURE_DRIFT},
        "half missing": {AlarmKind.INPUT_MISSING},
        "unknown in 2 %": {AlarmKind.UNSEEN_CATEGORY},
        "scores halved": {AlarmKind.SCORE_DRIFT, AlarmKind.CALIBRATION_OFF},
    }


@pytest.mark.long
def test_december_alarms_and_november_does_not(real: tuple[Reference, Bundle]) -> None:
    weeks = drift.weeks(drift.test_weeks(real[1]))
    off = {week: AlarmKind.CALIBRATION_OFF in names(drift.beyond(real[0], rows)) for week, rows in weeks}
    assert {week for week, alarm in off.items() if alarm} == set(STORMS)


@pytest.mark.long
def test_window_takes_ten_seconds_and_a_gigabyte(pipeline: Clone) -> None:
    code = """
import json, pathlib, time
from ops.monitoring.drift import report
from ops.studies import drift
reference, _ = drift.reference_of()
assert reference.psi_limits and reference.score_limit  # computed once for a model, not for each window
(window,) = drift.resampled(reference, 1, 10_000)
started = time.process_time()
drift.beyond(reference, window)
report.write_html(reference, window, pathlib.Path("build/drift"), 2)
used = time.process_time() - started
status = pathlib.Path("/proc/self/status").read_text()
peak = int(status.partition("VmHWM:")[2].split()[0])  # getrusage's maximum includes that of the process which started it
print(json.dumps([used, peak * 1024]))
"""
    seconds, memory = json.loads(pipeline.run("python", "-c", code).stdout.splitlines()[-1])
    assert seconds < 10
    assert memory < 1e9


def packed(row: dict[str, Any], bundle: Bundle) -> dict[str, Any]:
    """Return a block of one prediction."""
    coded = row["features"] | {
        name: bundle.lookups.vocabularies[name].index(row["features"][name])
        for name in CATEGORIES
        if row["features"][name] is not None
    }
    values = [float("nan") if coded[name] is None else float(coded[name]) for name in FEATURE_NAMES]
    served = ServedModel("model", row["model_version"], "production", None, bundle)
    created = int(row["id"][:12], 16) / 1000
    return block([Predictions(created, served, [row["id"]], [values], [row["probability"]], (), b"{}")])


def test_journal_is_read_as_it_was_written(small: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.path)
    reference, bundle = drift.reference_of()
    (drawn,) = drift.resampled(reference, 1, 600)
    window = drawn.assign(**{SCORE: drawn[SCORE] + np.arange(600) * 1e-9})  # each of them is another one
    engine = connect(f"sqlite:///{tmp_path}/journal.db")
    prepare(engine)
    now = datetime.now(UTC)
    values = json.loads(window[list(FEATURE_NAMES)].to_json(orient="records"))
    rows = [
        {
            "id": new_ids(now.timestamp() - i, 1)[0],
            "created_at": now - timedelta(seconds=i),
            "model_version": "1",
            "probability": p,
            "features": f,
        }
        for i, (f, p) in enumerate(zip(values, window[SCORE], strict=True))
    ]
    others = [
        rows[0] | {"id": new_ids((now - timedelta(days=9)).timestamp(), 1)[0]},
        rows[0] | {"id": new_ids(now.timestamp(), 1)[0], "model_version": "2"},
        rows[0] | {"id": new_ids((now + timedelta(days=400)).timestamp(), 1)[0]},  # by a clock that was wrong
    ]
    details = {"status": "arrived", "delay_minutes": 0}
    known = [
        {"prediction_id": row["id"], "received_at": now, "positive": late, "details": details}
        for row, late in zip(rows[:550], window[TARGET].astype(bool), strict=False)
    ]
    with engine.begin() as connection:
        connection.execute(insert(layouts), layout(bundle))
        connection.execute(insert(blocks), [packed(row, bundle) for row in rows + others])
        connection.execute(insert(outcomes), known)
    got = read_window(engine, "1", hours=168, rows=10_000)
    expected = window[::-1][[*FEATURE_NAMES, SCORE]].reset_index(drop=True)
    pd.testing.assert_frame_equal(got.predictions, expected, check_dtype=False)
    assert len(got.known) == 550 and got.known[TARGET].mean() == pytest.approx(window[TARGET].head(550).mean())
    few, none = read_window(engine, "1", hours=168, rows=100), read_window(engine, "3", hours=168, rows=100)
    assert [len(frame) for frame in (few.predictions, few.known)] == [100, 100]
    assert [len(frame) for frame in (none.predictions, none.known)] == [0, 0]
    assert 200 < np.mean([expected.index[expected[SCORE] == p][0] for p in few.predictions[SCORE]]) < 400, "a sample"
    assert not got.whole and not none.whole, "ten minutes of a week"
    registered = (now - timedelta(seconds=99.5)).timestamp()  # what was before is of a version of another registry
    assert len(read_window(engine, "1", hours=168, rows=10_000, registered=registered).predictions) == 100
    assert (
        read_window(engine, "1", hours=600 / 3600, rows=100).whole
        and not read_window(engine, "1", hours=1, rows=100).whole
    )
    assert outcomes_since(engine, now.timestamp() - 1) == 550 and outcomes_since(engine, now.timestamp() + 60) == 0
    assert drift.beyond(reference, got.predictions.assign(**{TARGET: window[::-1][TARGET].to_numpy()})) == []


@pytest.fixture
def monitor(small: Clone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Monitor]:
    """A monitor of the small pipeline's model, which is Production in a copy of its registry."""
    monkeypatch.chdir(small.path)
    shutil.copy("mlflow.db", "monitor.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///monitor.db")
    monkeypatch.setenv("ONTIME_JOURNAL_URL", f"sqlite:///{tmp_path}/journal.db")
    made = Monitor(DriftSettings())
    made.client.set_registered_model_alias("flight-delay", "production", "1")
    yield made
    made.engine.dispose()
    mlflow.set_tracking_uri(None)


@pytest.mark.long
def test_missing_or_unusable_journal_is_named(monitor: Monitor, tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    with pytest.raises(JournalMissing, match="no predictions yet.*journal.db.*make serve"):
        retraining.collect_evidence()
    assert not file.exists()
    file.touch()
    with pytest.raises(JournalMissing, match="no predictions yet"):
        retraining.collect_evidence()
    prepare(monitor.engine)
    evidence = retraining.collect_evidence()
    verdict = retraining.decide_retraining(evidence, params.load().monitor)
    assert verdict.action == "skip" and verdict.reasons[0].startswith("no predictions yet, ")
    with monitor.engine.begin() as connection:
        connection.execute(schema.update().values(version=5))
    with pytest.raises(JournalInvalid, match="schema version 5"):
        monitor.check("1")
    (tmp_path / "other").write_bytes(b"no database" * 1000)
    with pytest.raises(JournalInvalid, match="cannot be read: .*not a database"):
        read_window(connect(f"sqlite:///{tmp_path}/other"), "1", hours=1, rows=1)


@pytest.mark.parametrize("url", ["", "none", "mysql://host/database", "journal.db"])
def test_monitor_needs_a_journal(url: str) -> None:
    with pytest.raises(JournalInvalid, match="ONTIME_JOURNAL_URL names no journal"):
        connect(url)


def test_registry_is_read_at_every_run(monitor: Monitor) -> None:
    prepare(monitor.engine)
    assert monitor.look_up() == "1" and monitor.check("1")[1:] == (0, [])
    series = "registry_alias_info", {"name": "flight-delay", "alias": "production", "version": "1"}
    assert monitor.gauges.registry.get_sample_value(*series) == 1
    monitor.client.set_model_version_tag("flight-delay", "1", DIGEST_TAG, "0" * 64)
    with pytest.raises(BundleInvalid, match="does not match the registry"):  # the one that was read first does not do
        monitor.check("1")
    monitor.client.delete_registered_model("flight-delay")
    with pytest.raises(ModelUnavailable, match="flight-delay not found.*make repro"):
        monitor.look_up()
    assert monitor.gauges.registry.get_sample_value(*series) is None
