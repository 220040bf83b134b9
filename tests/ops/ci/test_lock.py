"""`on-time ci check-lock` in a clone without data and outputs: what belongs together passes, all else is named."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from stages import params
from tests.conftest import ROOT, Clone
from tests.support.repositories.scratch import commit, copy_tree, git

LEAVES = params.load(ROOT / "params.yaml").train.num_leaves


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The working tree, committed, as a clone has it."""
    path = tmp_path_factory.mktemp("lock")
    copy_tree(ROOT, path)
    git(path, "init", "--quiet", "--initial-branch=main")
    commit(path, "The working tree")
    return Clone(path)


def check(project: Clone) -> subprocess.CompletedProcess[str]:
    """Run the verb's command, and put back what the test has changed."""
    done = project.run("python", "-m", "ops.cli", "ci", "check-lock", check=False)
    git(project.path, "checkout", "--quiet", "--", ".")
    return done


def replace(path: Path, old: str, new: str) -> None:
    """Change a text once."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_committed_lock_is_of_this_commit(project: Clone) -> None:
    done = check(project)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        (
            "params.yaml",
            f"num_leaves: {LEAVES}",
            "num_leaves: 5",
            f"train: params.yaml: train.num_leaves: {LEAVES} → 5",
        ),
        ("stages/train.py", '"""', '"""Another. ', "train: stages/train.py: modified"),
        ("reports/metrics.json", "0.", "1.", "evaluate: reports/metrics.json: modified"),
        ("dvc.yaml", "cmd: python -m stages.train", "cmd: python -O -m stages.train", "train: changed command"),
        ("data.dvc", "md5: c", "md5: d", "validate: data: "),
        (
            "dvc.lock",
            "path: build/features\n      hash: md5\n      md5: ",
            "path: build/features\n      hash: md5\n      md5: 0",
            "train: build/features: ",
        ),
    ],
)
def test_what_differs_from_the_lock_is_named(project: Clone, file: str, old: str, new: str, named: str) -> None:
    replace(project.path / file, old, new)
    done = check(project)
    assert done.returncode == 3 and named in done.stderr and "make repro" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_report_is_named(project: Clone) -> None:
    (project.path / "reports/metrics.json").unlink()
    done = check(project)
    assert done.returncode == 3 and "reports/metrics.json: deleted" in done.stderr
