"""Repositories to try things in: this working tree, with all of the data, a small part of them or none."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import run
from tests.support.repositories.scratch import commit, copy_tree, cut, git, make_repository, write_params

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Clone:
    """A copy of this working tree, committed to a repository of its own, with its own DVC cache and MLflow."""

    path: Path

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the clone, with this environment's programs."""
        env = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "PYTEST_CURRENT_TEST")}
        env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", "DVC_NO_ANALYTICS": "1"} | environment
        done = run(command, self.path, env)
        assert (
            not check or done.returncode == 0
        ), f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def git_status(self) -> str:
        """Return the paths that git reports as changed."""
        return git(self.path, "status", "--porcelain")


def make_clone(path: Path, data: bool = True) -> Clone:
    """Copy the working tree, and the raw data if wanted, and commit it."""
    copy_tree(ROOT, path)
    if data:
        shutil.copytree(ROOT / "data", path / "data")
    make_repository(path)
    return Clone(path)


def make_small_clone(path: Path) -> Clone:
    """Return a clone with a small part of the data, in which the pipeline has run; the result is committed."""
    clone = make_clone(path)
    write_params(path, cut(path))
    clone.run("dvc", "add", "--quiet", "data")
    clone.run("dvc", "repro")
    commit(path, "A small part of the data")
    return clone


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that the first process of pytest-xdist that needs it has made; the others wait for it."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # the folder of all processes
    folder, complete = root / name, root / f"{name}.complete"
    with (root / f"{name}.lock").open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
            make(folder)
            complete.touch()
    return folder
