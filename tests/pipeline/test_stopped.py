"""A pipeline that is interrupted, started twice, or cannot log ends at once with its reason, and runs the next time."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.conftest import Clone
from tests.pipeline.conftest import executed, set_param
from tests.support.processes import Program, free_port, started, wait_for

REPRO = [sys.executable, "-m", "ops.cli", "model", "repro"]
MANY = 100_000
"""Rounds of training that no test waits for."""


@contextmanager
def training(clone: Clone) -> Iterator[Program]:
    """Run the pipeline until it trains, as the leader of a process group, as a shell does."""
    program = f"import os; os.setpgrp(); os.execv({REPRO[0]!r}, {REPRO!r})"
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    with started([sys.executable, "-c", program], clone.path, PATH=path, PYTHONUNBUFFERED="1") as repro:
        repro.wait_until("training", lambda: "python -m stages.train" in repro.output() and logs(repro))
        yield repro


def logs(repro: Program) -> bool:
    """Tell whether a stage logs, as it does from its first line on."""
    family = psutil.Process(repro.pid).children(recursive=True)
    return any("stages.recording" in process.cmdline() for process in family)


def test_ctrl_c_is_one_sentence_and_the_next_try_continues(changing: Clone) -> None:
    set_param(changing, "train", "rounds", MANY)
    with training(changing) as repro:
        os.killpg(repro.pid, signal.SIGINT)
        wait_for("the end", lambda: repro.poll() is not None, 60, repro.output)
        assert repro.returncode == 130 and "Traceback" not in repro.output()
        assert repro.output().endswith("Stopped. Complete stages are kept: the same command continues after them.\n")
    set_param(changing, "train", "rounds", 21)
    assert executed(changing.run(*REPRO[:-1], "train").stdout) == ["train", "evaluate"]


def test_a_second_one_in_the_same_folder_is_refused_and_the_first_goes_on(changing: Clone) -> None:
    set_param(changing, "train", "rounds", MANY)
    with training(changing) as repro:
        second = changing.run(*REPRO, check=False)
        assert second.returncode == 1
        assert second.stderr.startswith("error: the pipeline already runs in this folder; run the command again")
        assert repro.poll() is None
        os.killpg(repro.pid, signal.SIGINT)
        wait_for("the end", lambda: repro.poll() is not None, 60, repro.output)


@pytest.mark.parametrize("stdin", ["terminal", "background"])
def test_a_stage_that_cannot_log_does_not_compute_to_its_end(changing: Clone, stdin: str) -> None:
    set_param(changing, "train", "rounds", MANY)
    uri = f"http://127.0.0.1:{free_port()}"
    ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); " * (stdin == "background")
    program = f"{ignored}from stages import errors, train; errors.run(train.main)"
    done = changing.run("python", "-c", program, check=False, MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 1 and f"error: MLflow is unreachable at {uri}" in done.stderr
    assert "Traceback" not in done.stderr and "rounds" not in done.stderr
