"""A pipeline that is interrupted, started twice, or cannot log ends at once with its reason, and runs the next time."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from tests.conftest import Clone
from tests.pipeline.conftest import executed, set_param
from tests.support.processes import Program, free_port, started, wait_for

pytestmark = pytest.mark.long

REPRO = [sys.executable, "-m", "ops.cli", "model", "repro"]
MANY = 100_000
"""Rounds of training that no test waits for."""


def interrupt(repro: Program) -> None:
    """Press Ctrl-C, which a terminal sends to the whole process group, and check the last words."""
    os.killpg(repro.pid, signal.SIGINT)
    wait_for("the end", lambda: repro.poll() is not None, 60, repro.output)
    assert repro.returncode == 130 and "Traceback" not in repro.output()
    assert repro.output().endswith("Stopped. Complete stages are kept: the same command continues after them.\n")


def test_a_second_run_is_refused_and_ctrl_c_stops(changing: Clone) -> None:
    set_param(changing, "train", "rounds", MANY)
    program = f"import os; os.setpgrp(); os.execv({REPRO[0]!r}, {REPRO!r})"  # as a shell starts a command
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    with started([sys.executable, "-c", program], changing.path, PATH=path, PYTHONUNBUFFERED="1") as repro:
        repro.wait_until("training", lambda: "python -m stages.train" in repro.output())
        second = changing.run(*REPRO, check=False)
        assert second.returncode == 1
        assert second.stderr.startswith("error: the pipeline already runs in this folder; run the command again")
        assert repro.poll() is None
        interrupt(repro)
    set_param(changing, "train", "rounds", 21)
    assert executed(changing.run("dvc", "repro", "--single-item", "train").stdout) == ["train"]


def test_a_stage_that_cannot_log_computes_nothing(small: Clone) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    done = small.run("python", "-m", "stages.train", check=False, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 1 and done.stderr.startswith(f"error: MLflow is unreachable at {uri}")
    assert "env -u MLFLOW_TRACKING_URI make repro" in done.stderr and done.stderr.count("\n") == 1
