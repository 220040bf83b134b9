"""The alert receiver: what it logs, which commands it runs, and when it raises an alert itself."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from ops.monitoring import alert_receiver
from ops.monitoring.alert_receiver import ReceiverSettings, create_app
from tests.support.processes import wait_for

OFF = {"status": "firing", "labels": {"alertname": "CalibrationOff"}, "annotations": {"summary": "Off by 13 %"}}
WATCHDOG = {"status": "firing", "labels": {"alertname": "Watchdog"}}


@contextmanager
def listening(**settings: object) -> Iterator[TestClient]:
    """Run the receiver with these settings."""
    with TestClient(create_app(ReceiverSettings(**settings))) as client:  # type: ignore[arg-type]
        yield client


def counted(client: TestClient, name: str) -> dict[str, float]:
    """Return a counter's values by its label."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [sample for family in families for sample in family.samples if sample.name == f"{name}_total"]
    return {next(iter(sample.labels.values())): sample.value for sample in samples}


def script(path: Path, code: str) -> str:
    """Return a command that runs this Python."""
    path.write_text(code)
    return f"{sys.executable} {path}"


def test_each_alert_becomes_one_line_of_json(caplog: pytest.LogCaptureFixture) -> None:
    with listening() as client:
        assert counted(client, "receiver_alerts") == {"firing": 0, "resolved": 0}
        assert client.post("/alerts", json={"alerts": [OFF, OFF | {"status": "resolved"}]}).status_code == 200
        assert counted(client, "receiver_alerts") == {"firing": 1, "resolved": 1}
    written = [
        json.loads(record.message) for record in caplog.records if record.name == "ops.monitoring.alert_receiver"
    ]
    expected = {"alertname": "CalibrationOff", "summary": "Off by 13 %"}
    assert written == [{"status": "firing"} | expected, {"status": "resolved"} | expected]


def test_an_invalid_notification_is_refused() -> None:
    with listening() as client:
        assert client.post("/alerts", json={"alerts": [{"labels": {}}]}).status_code == 422
        assert counted(client, "receiver_alerts") == {"firing": 0, "resolved": 0}


def test_silence_raises_the_alarm_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(alert_receiver, "CHECK_SECONDS", 0.02)
    told = tmp_path / "told"
    command = script(tmp_path / "tell.py", f"open({str(told)!r}, 'a').write('silent ')")
    with listening(silence_seconds=0.5, silence_command=command) as client:
        assert client.get("/readyz").status_code == 200
        wait_for("the alarm", lambda: client.get("/readyz").status_code == 503 and told.exists())
        time.sleep(0.7)
        assert told.read_text() == "silent ", "once"
        client.post("/watchdog", json={"alerts": [WATCHDOG | {"status": "resolved"}]})
        assert client.get("/readyz").status_code == 503, "a resolved Watchdog is not a sign of life"
        client.post("/watchdog", json={"alerts": [WATCHDOG]})
        assert client.get("/readyz").json()["watchdog_seconds_ago"] < 0.5
        for _ in range(20):  # as long as it is heard, there is no silence
            client.post("/watchdog", json={"alerts": [WATCHDOG]})
            time.sleep(0.05)
        assert client.get("/readyz").status_code == 200
    assert [record.levelno for record in caplog.records].count(logging.CRITICAL) == 1


def test_a_cause_starts_one_retraining_at_a_time(tmp_path: Path) -> None:
    go, ran = tmp_path / "go", tmp_path / "ran"
    code = f"import time, pathlib\nwhile not pathlib.Path({str(go)!r}).exists(): time.sleep(0.02)\n"
    command = script(tmp_path / "retrain.py", code + f"open({str(ran)!r}, 'a').write('x')")
    with listening(retrain_command=command) as client:

        def ask() -> dict[str, str]:
            return dict(client.post("/retrain", json={"alerts": [OFF]}).json())

        assert client.post("/retrain", json={"alerts": [OFF | {"status": "resolved"}]}).json() == {"result": "resolved"}
        assert ask() == {"result": "started"} and ask() == {"result": "busy"}
        go.touch()
        wait_for("the retraining", lambda: counted(client, "receiver_retrain")["done"] == 1)
        assert ran.read_text() == "x"
        assert ask() == {"result": "started"}, "again, when it has ended"
        wait_for("the second one", lambda: counted(client, "receiver_retrain")["done"] == 2)
        assert counted(client, "receiver_retrain") == {"started": 2, "busy": 1, "done": 2, "failed": 0}


@pytest.mark.parametrize("command", ["no-such-program --at-all", f"{sys.executable} -c 'raise SystemExit(3)'"])
def test_a_retraining_that_fails_is_counted(command: str) -> None:
    with listening(retrain_command=command) as client:
        client.post("/retrain", json={"alerts": [OFF]})
        wait_for("the failure", lambda: counted(client, "receiver_retrain")["failed"] == 1)
        assert client.get("/livez").status_code == 200 and counted(client, "receiver_retrain")["done"] == 0


@pytest.mark.parametrize("path", ["alerts", "watchdog", "retrain"])
def test_with_a_token_file_only_its_bearer_is_heard(path: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("the-token\n")
    with listening(token_file=file, retrain_command="true") as client:

        def post(token: str) -> int:
            body, header = {"alerts": [OFF]}, {"Authorization": token}
            return client.post(f"/{path}", json=body, headers=header).status_code

        assert post("Bearer the-token") == 200
        assert {post(token) for token in ("", "the-token", "Bearer another", "Bearer ")} == {401}
        file.write_text("")
        assert post("Bearer ") == 401, "an empty file opens nothing"
        assert client.get("/livez").status_code == 200


def test_a_clock_that_is_set_forward_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(silence_seconds=60) as client:
        later = time.time() + 3600
        monkeypatch.setattr(time, "time", lambda: later)
        answer = client.get("/readyz")
        assert answer.status_code == 200 and answer.json()["watchdog_seconds_ago"] < 60


@pytest.mark.parametrize("command", ["sleep 60", "echo 'unbalanced"])
def test_a_bad_command_does_not_end_the_watch(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_receiver, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(alert_receiver, "COMMAND_SECONDS", 0.2)
    with listening(silence_seconds=0.3, silence_command=command) as client:
        for _ in range(2):
            wait_for("the alarm", lambda: client.get("/readyz").status_code == 503)
            client.post("/watchdog", json={"alerts": [WATCHDOG]})
            assert client.get("/readyz").status_code == 200


def test_an_alert_without_a_name_is_no_error(tmp_path: Path) -> None:
    with listening(retrain_command=script(tmp_path / "retrain.py", "")) as client:
        answer = client.post("/retrain", json={"alerts": [{"status": "firing", "labels": {}}]})
        assert answer.json() == {"result": "started"}
