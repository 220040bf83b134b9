"""The gate of a pull request in a repository of its own: what it compares with, what it says, what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.gate import pull_request
from ops.gate.pull_request import Judged
from stages import params
from stages.base.errors import FileInvalid
from stages.base.git import GitFailed
from stages.base.paths import EVALUATION_FILE, METRICS_FILE
from tests.conftest import ROOT, Clone
from tests.support.repositories.scratch import commit, git

PROJECT = [METRICS_FILE, EVALUATION_FILE, Path("params.yaml")]


@pytest.fixture(name="repository", scope="module")
def first_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a first commit without reports, tagged `empty`, and one with the reports on `main`."""
    path = tmp_path_factory.mktemp("repository")
    Clone(path).run("git", "init", "--quiet", "--initial-branch=main")
    Clone(path).run("dvc", "init", "--quiet")
    shutil.copy(ROOT / "params.yaml", path)
    (path / "dvc.yaml").write_text(f"metrics: [{METRICS_FILE}]\n")
    commit(path, "Nothing measured yet")
    git(path, "tag", "empty")
    (path / "reports").mkdir()
    for name in PROJECT:
        shutil.copy(ROOT / name, path / name)
    commit(path, "A model")
    git(path, "checkout", "--quiet", "-b", "change")
    return path


@pytest.fixture(autouse=True)
def working_tree(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run a test in the repository, which is as before afterwards."""
    monkeypatch.chdir(repository)
    yield
    git(repository, "reset", "--quiet", "--hard", "main")


def judge(base: str = "main") -> Judged:
    """Judge the working tree."""
    return pull_request.judge_commit(base, params.load().gate)


def change(path: Path, group: str, metric: str, value: Any) -> None:
    """Change a number of a report."""
    content = json.loads(path.read_bytes())
    content[group][metric] = value
    path.write_text(json.dumps(content))


def test_first_run_is_judged_by_the_floors() -> None:
    """Also where GitHub names no base for a new branch."""
    for base in ("empty", "0" * 40):
        assert judge(base).decision.accepted
    assert "A first run" in judge("empty").comment and "(regression)" not in judge("empty").comment
    change(METRICS_FILE, "test", "roc_auc", 0.6)
    for base in ("empty", "0" * 40):
        assert "roc_auc is 0.6" in judge(base).decision.reasons[0]


def test_equal_model_passes() -> None:
    comment = judge().comment
    assert comment.startswith("### Gate: passed")
    assert "| roc_auc (regression) " in comment and "policy changes" not in comment


@pytest.mark.parametrize("path", [METRICS_FILE, EVALUATION_FILE])
def test_missing_report_is_refused(path: Path) -> None:
    path.unlink()
    assert "is nan" in "; ".join(judge().decision.reasons)


def test_command_ends_with_3(repository: Path) -> None:
    change(METRICS_FILE, "test", "roc_auc", 0.6)
    command = ["python", "-m", "ops.cli", "model", "gate", "--base", "main"]
    done = Clone(repository).run(*command, check=False, PYTHONPATH=str(ROOT))
    assert done.returncode == 3 and done.stdout.startswith("### Gate: refused")
    assert "roc_auc (regression)" in done.stderr and "Traceback" not in done.stderr


def test_loosened_policy_is_shown() -> None:
    path = Path("params.yaml")
    path.write_text(path.read_text(encoding="utf-8").replace("roc_auc: 0.70", "roc_auc: 0.60"), encoding="utf-8")
    assert "`gate.floors.roc_auc`: 0.7 → 0.6" in judge().comment


def test_unknown_base_is_an_error() -> None:
    with pytest.raises(GitFailed, match="make gate BASE="):
        judge("nowhere")


@pytest.mark.parametrize("path", [METRICS_FILE, Path("dvc.yaml")])
def test_conflict_marker_is_named(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:1], "<<<<<<< HEAD", *lines[1:], ">>>>>>> main"]), encoding="utf-8")
    with pytest.raises(FileInvalid, match=f"^{path}:2: conflict marker"):
        judge()


def test_conflict_marker_in_the_base_is_named(repository: Path) -> None:
    text = METRICS_FILE.read_text(encoding="utf-8")
    METRICS_FILE.write_text(text + ">>>>>>> main\n", encoding="utf-8")
    commit(repository, "A conflict that was committed")
    METRICS_FILE.write_text(text, encoding="utf-8")
    with pytest.raises(FileInvalid, match=f":{METRICS_FILE}:.*make gate BASE="):
        judge("HEAD")


def test_base_in_a_shallow_clone(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command in the error finds the common commit."""
    git(repository, "checkout", "--quiet", "--orphan", "unrelated")
    commit(repository, "Another beginning")
    with pytest.raises(GitFailed, match="share no history.*`git fetch origin`"):
        judge()
    git(repository, "checkout", "--quiet", "change")
    commit(repository, "Later")
    git(tmp_path, "clone", "--quiet", "--depth=1", "--no-single-branch", f"file://{repository}", "shallow")
    monkeypatch.chdir(tmp_path / "shallow")
    with pytest.raises(GitFailed, match="the clone is shallow.*`git fetch --unshallow`"):
        judge("origin/main")
    git(tmp_path / "shallow", "fetch", "--quiet", "--unshallow")
    assert judge("origin/main").decision.accepted
