"""The decision to retrain, the request for it, and the window that it moves."""

from __future__ import annotations

import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops.monitoring.drift.compare import Alarm, AlarmKind
from ops.training.retraining import (
    RetrainEvidence,
    RetrainingFailed,
    RetrainSettings,
    decide_retraining,
    dispatch,
    move_window,
)
from stages import params
from tests.conftest import ROOT

POLICY = params.load(ROOT / "params.yaml").monitor
OFF = (Alarm(AlarmKind.CALIBRATION_OFF, -0.133),)
MISSING = (Alarm(AlarmKind.INPUT_MISSING, 0.5, "a feature"),)
REASON = "CalibrationOff -0.133"


@pytest.mark.parametrize(
    ("evidence", "action", "reasons"),
    [
        ({}, "skip", ["no alarm"]),
        ({"rows": 499}, "skip", ["499 predictions yet, 500 are needed: nothing was compared"]),
        # what a new model would repair
        ({"alarms": OFF}, "retrain", [REASON]),
        ({"alarms": (Alarm(AlarmKind.SCORE_DRIFT, 0.5),)}, "retrain", ["ScoreDrift 0.5"]),
        ({"alarms": (Alarm(AlarmKind.UNSEEN_CATEGORY, 0.5, "dest"),)}, "retrain", ["UnseenCategory dest 0.5"]),
        ({"age_days": 90.1}, "retrain", ["the model is 90 days old, the limit is 90"]),
        # what a new model would not repair
        ({"alarms": MISSING}, "skip", ["InputMissing a feature 0.5"]),
        ({"alarms": (Alarm(AlarmKind.FEATURE_DRIFT, 0.5, "a feature"),)}, "skip", ["FeatureDrift a feature 0.5"]),
        ({"age_days": 90.0}, "skip", ["no alarm"]),
        # a cause with an obstacle
        ({"alarms": OFF + 4 * MISSING}, "block", ["4 features are missing too often", REASON]),
        ({"alarms": OFF, "new_outcomes": 9_999}, "block", ["9999 new outcomes, 10000 are needed", REASON]),
        ({"alarms": OFF, "days_since_retraining": 6.9}, "block", ["the last retraining was 6.9 days ago", REASON]),
        ({"alarms": OFF + 3 * MISSING, "new_outcomes": 10_000, "days_since_retraining": 7.0}, "retrain", [REASON]),
        # numbers that are missing never retrain
        ({"alarms": OFF, "days_since_retraining": math.nan}, "block", ["the last retraining was nan", REASON]),
        ({"age_days": math.nan, "new_outcomes": 0}, "block", ["0 new outcomes", "the model is nan days old"]),
    ],
)
def test_decision(evidence: dict[str, Any], action: str, reasons: list[str]) -> None:
    well = {"version": "3", "rows": 10_000, "alarms": (), "new_outcomes": 30_000, "age_days": 10.0}
    verdict = decide_retraining(RetrainEvidence(**{**well, "days_since_retraining": math.inf, **evidence}), POLICY)
    assert (verdict.action, len(verdict.reasons)) == (action, len(reasons)), verdict
    assert all(reason.startswith(start) for reason, start in zip(verdict.reasons, reasons, strict=True)), verdict


def test_github_is_asked_with_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("the-token\n")
    settings = RetrainSettings(repository="owner/name", token_file=tmp_path / "token", api="http://github.test")
    requests: list[httpx.Request] = []
    status = [204, 500]

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(status.pop(0))

    monkeypatch.setattr(httpx, "post", httpx.Client(transport=httpx.MockTransport(answer)).post)
    dispatch(settings, (REASON,))
    assert str(requests[0].url) == "http://github.test/repos/owner/name/dispatches"
    assert requests[0].headers["Authorization"] == "Bearer the-token"
    assert json.loads(requests[0].content) == {"event_type": "retrain", "client_payload": {"reason": REASON}}
    with pytest.raises(RetrainingFailed, match="on-time model retrain --now"):
        dispatch(settings, (REASON,))
    with pytest.raises(RetrainingFailed, match="TOKEN_FILE"):
        dispatch(RetrainSettings(repository="owner/name", token_file=tmp_path / "none"), (REASON,))


def test_only_a_possible_window_is_written(tmp_path: Path) -> None:
    file, text = tmp_path / "params.yaml", (ROOT / "params.yaml").read_text()
    file.write_text(text)
    for until, reason in (
        (date(2013, 1, 20), "featurize.train, 2013-01-01 to 2012-12-23, ends before it begins"),
        (date(2014, 1, 20), "featurize.test, 2013-12-24 to 2014-01-20, reaches beyond the data"),
        (date(2013, 6, 15), "train.fold_months: month 6"),
    ):
        with pytest.raises(RetrainingFailed, match=f"cannot end on {until}: .*{reason}"):
            move_window(until, file)
    assert file.read_text() == text
    move_window(date(2013, 12, 15), file)
    after = params.load(file).featurize
    assert after.train == (date(2013, 1, 1), date(2013, 11, 17))
    assert after.test == (date(2013, 11, 18), date(2013, 12, 15))
    lines = zip(text.splitlines(), file.read_text().splitlines(), strict=True)
    assert [new.split(":")[0].strip() for old, new in lines if old != new] == ["train", "test"]
