"""The decision to retrain, the request for it, and the window that it moves."""

from __future__ import annotations

import json
import math
import threading
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ops.monitoring.drift.compare import Alarm, AlarmKind
from ops.retraining.decide import Evidence, RetrainingFailed, RetrainSettings, Verdict, decide, dispatch, move_window
from stages import params
from tests.conftest import ROOT

POLICY = params.load(ROOT / "params.yaml").monitor
WELL = {"version": "3", "rows": 10_000, "alarms": (), "new_outcomes": 30_000, "age_days": 10.0}
OFF = (Alarm(AlarmKind.CALIBRATION_OFF, -0.133),)
MISSING = (Alarm(AlarmKind.INPUT_MISSING, 0.5, "a feature"),)
REASON = "CalibrationOff -0.133"


def verdict(**evidence: object) -> Verdict:
    """Return the verdict on a model that is well but for this."""
    return decide(Evidence(**(WELL | {"days_since_retraining": math.inf} | evidence)), POLICY)  # type: ignore[arg-type]


def test_a_model_that_is_well_is_left_alone() -> None:
    assert verdict().action == "skip"
    assert verdict(new_outcomes=0).action == "skip"
    assert verdict() == Verdict("skip", ("no alarm",))


@pytest.mark.parametrize(("rows", "words"), [(0, "no predictions yet"), (499, "499 predictions yet")])
def test_nothing_that_was_compared_is_not_no_alarm(rows: int, words: str) -> None:
    assert verdict(rows=rows).action == "skip" and verdict(rows=rows).reasons[0].startswith(words)
    assert verdict(rows=rows, age_days=91.0, new_outcomes=20_000).action == "retrain"


@pytest.mark.parametrize(
    "kind",
    [AlarmKind.CALIBRATION_OFF, AlarmKind.LIVE_LOSS_HIGH, AlarmKind.SCORE_DRIFT, AlarmKind.UNSEEN_CATEGORY],
)
def test_what_a_new_model_would_repair_is_a_cause(kind: AlarmKind) -> None:
    assert verdict(alarms=(Alarm(kind, 0.5),)) == Verdict("retrain", (f"{kind} 0.5",))


@pytest.mark.parametrize("kind", [AlarmKind.FEATURE_DRIFT, AlarmKind.INPUT_MISSING])
def test_what_a_new_model_would_not_repair_is_none(kind: AlarmKind) -> None:
    found = verdict(alarms=(Alarm(kind, 0.5, "a feature"),))
    assert found == Verdict("skip", (f"{kind} a feature 0.5",))


def test_age_is_a_cause() -> None:
    assert verdict(age_days=90.0).action == "skip"
    assert verdict(age_days=90.1).action == "retrain"


@pytest.mark.parametrize(
    ("obstacle", "word"),
    [
        ({"alarms": OFF + 4 * MISSING}, "source"),
        ({"new_outcomes": 9_999}, "10000"),
        ({"days_since_retraining": 6.9}, "6.9 days"),
    ],
)
def test_a_cause_with_an_obstacle_is_blocked_and_says_both(obstacle: dict[str, object], word: str) -> None:
    blocked = verdict(**({"alarms": OFF} | obstacle))
    assert blocked.action == "block"
    assert word in blocked.reasons[0] and blocked.reasons[-1] == REASON


def test_at_the_limits_there_is_no_obstacle() -> None:
    assert verdict(alarms=OFF + 3 * MISSING, new_outcomes=10_000, days_since_retraining=7.0).action == "retrain"


def test_numbers_that_are_missing_never_retrain() -> None:
    assert verdict(alarms=OFF, days_since_retraining=math.nan).action == "block"
    assert verdict(age_days=math.nan, new_outcomes=0).action == "block"


def test_the_window_moves_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_text((ROOT / "params.yaml").read_text())
    before = params.load(file)
    move_window(date(2013, 12, 15), file)
    after = params.load(file)
    assert after.featurize.train == (date(2013, 1, 1), date(2013, 11, 17))
    assert after.featurize.test == (date(2013, 11, 18), date(2013, 12, 15))
    assert after.model_copy(update={"featurize": before.featurize}) == before
    lines = zip((ROOT / "params.yaml").read_text().splitlines(), file.read_text().splitlines(), strict=True)
    assert [new.split(":")[0].strip() for old, new in lines if old != new] == ["train", "test"]


@pytest.mark.parametrize(
    ("until", "why"),
    [
        (date(2013, 1, 20), "featurize.train, 2013-01-01 to 2012-12-23, ends before it begins"),
        (date(2014, 1, 20), "featurize.test, 2013-12-24 to 2014-01-20, reaches beyond the data"),
        (date(2013, 6, 15), "train.fold_months: month 6"),
    ],
)
def test_a_window_that_cannot_be_is_not_written(tmp_path: Path, until: date, why: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text((ROOT / "params.yaml").read_text())
    with pytest.raises(RetrainingFailed, match=f"cannot end on {until}: .*{why}"):
        move_window(until, file)
    assert file.read_text() == (ROOT / "params.yaml").read_text()


def test_github_is_asked_with_the_token_in_the_file(tmp_path: Path) -> None:
    asked = []

    class GitHub(BaseHTTPRequestHandler):
        """Takes one request."""

        def do_POST(self) -> None:  # pylint: disable=invalid-name
            """Keep it, and answer as GitHub does."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, self.headers["Authorization"], json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:  # pylint: disable=arguments-differ
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), GitHub)
    threading.Thread(target=server.handle_request, daemon=True).start()
    (tmp_path / "token").write_text("the-token\n")
    settings = RetrainSettings(
        repository="owner/name", token_file=tmp_path / "token", api=f"http://127.0.0.1:{server.server_port}"
    )
    dispatch(settings, (REASON,))
    server.server_close()
    payload = {"event_type": "retrain", "client_payload": {"reason": REASON}}
    assert asked == [("/repos/owner/name/dispatches", "Bearer the-token", payload)]
    with pytest.raises(RetrainingFailed, match="on-time model retrain --now"):
        dispatch(settings, (REASON,))  # nobody answers any more
    with pytest.raises(RetrainingFailed, match="TOKEN_FILE"):
        dispatch(RetrainSettings(repository="owner/name", token_file=tmp_path / "none"), (REASON,))
