"""`.ci/run` itself: the time of each step, a step that fails, and an engine that is found, started or left out."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

STEPS = """
setup lint docs repro:
	@echo $@ with CI=$$CI; $(BROKEN_$@)
test test-all:
	@echo "$@ with $$PYTEST_ADDOPTS"; echo '== 7 passed of $@ in 1.00s (0:00:01) =='; $(BROKEN_$@)
"""


UNSET = ("CI", "ONTIME_DOCKER_UP", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # the tests may be run by make


def _run(folder: Path, *programs: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it on steps that only print, on a machine whose `docker` is one of these scripts."""
    for name, text in (("on-time", "#!/bin/sh\n"), (".ci/packages", "#!/bin/sh\n"), ("Makefile", STEPS)):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    shutil.copy2(ROOT / ".ci/run", folder / ".ci/run")
    (folder / "bin").mkdir()
    for program in programs:
        (folder / "bin/docker").write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
        (folder / "bin/docker").chmod(0o755)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    env = {name: value for name, value in os.environ.items() if name not in UNSET}
    env |= {"PATH": f"{folder}/bin:{env['PATH']}"} | environment
    return subprocess.run([folder / ".ci/run"], env=env, capture_output=True, text=True, check=False)


def test_each_test_runs_once_and_summaries_are_last(tmp_path: Path) -> None:
    done = _run(tmp_path / "clone", "exit 0")
    assert done.returncode == 0, done.stderr
    summaries = [f"== 7 passed of {target} in 1.00s (0:00:01) ==" for target in ("test", *["test-all"] * 2)]
    assert done.stdout.splitlines()[-3:] == summaries
    chosen = "test-all with -m 'long and not nightly'"
    assert f"{chosen} tests/adapt tests/system\n" in done.stdout
    assert f"{chosen} --ignore tests/adapt --ignore tests/system\n" in done.stdout
    assert done.stdout.count(" s  ok ") == 8 and "lint with CI=true" in done.stdout
    assert "left out" not in done.stdout


@pytest.mark.parametrize("step", ["lint", "repro", "test", "test-all"])
def test_failing_step_fails_the_run_at_its_end(step: str, tmp_path: Path) -> None:
    done = _run(tmp_path / "clone", "exit 0", **{f"BROKEN_{step}": "false"})
    assert done.returncode == 1
    assert (done.stdout.count("  FAILED  "), done.stdout.count("  ok      ")) == (1, 7)


def test_model_that_changes_committed_files_fails(tmp_path: Path) -> None:
    done = _run(tmp_path / "clone", "exit 0", BROKEN_repro="echo >>on-time")
    assert done.returncode == 1 and "make repro changed committed files" in done.stderr


def test_an_engine_that_a_command_starts_is_used(tmp_path: Path) -> None:
    started = tmp_path / "started"
    done = _run(tmp_path / "clone", f"test -e '{started}'", ONTIME_DOCKER_UP=f"touch '{started}'")
    assert done.returncode == 0 and "lint with CI=true" in done.stdout


@pytest.mark.parametrize("command", ["", "false"])
def test_without_an_engine_what_is_left_out_is_named(command: str, tmp_path: Path) -> None:
    done = _run(tmp_path / "clone", "exit 1", ONTIME_DOCKER_UP=command)
    assert done.returncode == 0 and "lint with CI=\n" in done.stdout
    assert "No Docker engine answers" in done.stdout.splitlines()[-4]
