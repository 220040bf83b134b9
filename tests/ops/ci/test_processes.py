"""The helper that the tests start processes with: nothing survives it, and a wait that fails names what it was for."""

from __future__ import annotations

import sys

import psutil
import pytest

from tests.support import processes
from tests.support.processes import running, started, wait_for

STUBBORN = """
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen(["sleep", "100"]).pid, flush=True)
time.sleep(100)
"""


def runs(pid: int) -> bool:
    """Tell whether a process runs; one that has ended may not have been waited for."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_process_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.5)
    with started([sys.executable, "-c", STUBBORN]) as process:
        child = int(wait_for("the id of the child", process.output))
        assert runs(child)
    assert process.returncode == -9
    wait_for("the end of the child", lambda: not runs(child), 10)


@pytest.mark.parametrize(
    ("code", "seconds", "message"),
    [
        ("print('hello'); raise SystemExit(3)", 60, "ended with 3 before 200 from http://127.0.0.1:9/(.|\n)*hello"),
        ("import time; print('hello', flush=True); time.sleep(60)", 2, "not within 2 s: 200 from (.|\n)*hello"),
    ],
)
def test_server_that_fails_to_start_shows_its_output(code: str, seconds: float, message: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=message):
        with running([sys.executable, "-c", code], "http://127.0.0.1:9/", seconds=seconds):
            pytest.fail("it is not ready")


def test_endless_wait_names_its_condition() -> None:
    with pytest.raises(pytest.fail.Exception, match="not within 0.1 s: the moon"):
        wait_for("the moon", lambda: False, 0.1)
