"""The monitoring by Debian's programs: the committed files, elsewhere and faster, and nothing left running."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from app.interface import EXAMPLE
from ops.monitoring.local import NOT_HERE, TARGETS, ProgramFailed, Site, faster, started, watch
from ops.stack import credentials
from tests.conftest import ROOT
from tests.support.monitoring import needs, passes

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.mark.parametrize(
    ("text", "speed", "expected"),
    [
        ("for: 5m", 1, "for: 5m"),
        ("for: 5m", 60, "for: 5000ms"),
        ("for: 1m", 600, "for: 1000ms"),
        ("rate(x[1h])", 60, "rate(x[60000ms])"),
        ("rate(x[5m])", 600, "rate(x[5000ms])"),
        ("x[30d:5m]", 60, "x[43200000ms:5000ms]"),
        ("group_wait: 0s", 60, "group_wait: 0s"),
        ("p95 > 0.25 and ratio_rate5m", 60, "p95 > 0.25 and ratio_rate5m"),
    ],
)
def test_durations_shrink_and_names_stay(text: str, speed: float, expected: str) -> None:
    assert faster(text, speed) == expected


def site(folder: Path, speed: float = 60, **settings: object) -> Site:
    """Return a site on ports that nothing listens on."""
    targets = {name: f"127.0.0.1:{20000 + i}" for i, name in enumerate(TARGETS)}
    return Site(folder, targets, speed, **settings)  # type: ignore[arg-type]


@needs("promtool", "amtool")
@pytest.mark.parametrize(("speed", "without"), [(1, ()), (10080, NOT_HERE)])
def test_what_is_written_is_accepted(tmp_path: Path, speed: float, without: tuple[str, ...]) -> None:
    site(tmp_path, speed, without=without).write()
    assert "SUCCESS" in passes("promtool", "check", "config", tmp_path / "prometheus" / "prometheus.yml")
    passes("amtool", "check-config", tmp_path / "alertmanager" / "alertmanager.yml")
    written = "".join(file.read_text() for file in tmp_path.rglob("*.yml") if file.name != "blackbox.yml")
    assert not [name for name in TARGETS if name in written], "addresses of the containers"


@needs("prometheus-blackbox-exporter")
def test_the_probe_sends_the_example_of_the_problem(tmp_path: Path) -> None:
    site(tmp_path).write()
    local = tmp_path / "prometheus" / "blackbox.yml"
    passes("prometheus-blackbox-exporter", "--config.check", f"--config.file={local}")
    (tmp_path / "mlflow_users").touch()
    for key in ("", "a-key"):  # a second time as well
        (tmp_path / "probe_key").write_text(key)
        credentials.write_secrets(tmp_path)
    probes = [yaml.safe_load(file.read_text())["modules"]["predict"]["http"] for file in (local, tmp_path / local.name)]
    assert [json.loads(probe["body"]) for probe in probes] == [EXAMPLE] * 2
    assert [probe["headers"].get("X-API-Key") for probe in probes] == [None, "a-key"]


def test_only_jobs_that_are_not_here_are_left_out(tmp_path: Path) -> None:
    committed = yaml.safe_load((ROOT / "ops" / "monitoring" / "config" / "prometheus" / "prometheus.yml").read_text())[
        "scrape_configs"
    ]
    site(tmp_path, without=NOT_HERE).write()
    written = yaml.safe_load((tmp_path / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    left_out = {job["job_name"] for job in committed} - {job["job_name"] for job in written}
    assert left_out == {"cadvisor", "grafana"}
    assert not (tmp_path / "prometheus" / "rules" / "containers.yml").exists()


def test_the_window_of_drift_is_a_replayed_week(tmp_path: Path) -> None:
    usual, replayed = site(tmp_path, 1).ours(), site(tmp_path, 60, week_seconds=60).ours()
    assert float(usual["monitor drift"]["ONTIME_DRIFT_WINDOW_HOURS"]) == 168
    assert float(usual["monitor drift"]["ONTIME_DRIFT_MINUTES"]) == 15
    for command in ("monitor drift", "monitor receiver"):
        assert float(replayed[command]["ONTIME_DRIFT_WINDOW_HOURS"]) == pytest.approx(1 / 60)
    assert float(replayed["monitor drift"]["ONTIME_DRIFT_MINUTES"]) == 0.25
    assert float(usual["monitor receiver"]["ONTIME_RECEIVER_SILENCE_SECONDS"]) == 180


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProgramFailed, match="apt install prometheus-alertmanager"):
        with started({"prometheus-alertmanager": []}, {}):
            pytest.fail("nothing was started")


def test_programs_end_with_the_block() -> None:
    with pytest.raises(ProgramFailed, match="false ended with 1"):
        with started({SLEEP[0]: SLEEP[1:], "false": []}, {}) as running:
            pids = {name: process.pid for name, process in running.items()}
            watch(running)
    assert not psutil.pid_exists(pids[SLEEP[0]])
