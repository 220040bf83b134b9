"""Git's refusals: each cause is named with the command that helps; a commit is never made up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stages.base import git
from stages.base.git import GitFailed
from tests.support.repositories import scratch


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a repository with one commit."""
    path = tmp_path / "main"
    path.mkdir()
    (path / "kept.json").write_text("{}")
    scratch.make_repository(path)
    monkeypatch.chdir(path)
    return path


def test_commit_of_detached_head_and_worktree(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = git.commit()
    scratch.git(repository, "checkout", "--quiet", "--detach")
    assert git.commit() == commit
    worktree = repository.with_name("other")
    scratch.git(repository, "worktree", "add", "--quiet", str(worktree))
    monkeypatch.chdir(worktree)
    assert git.commit() == commit
    moved = shutil.move(repository, repository.with_name("moved"))
    with pytest.raises(GitFailed, match="git worktree repair"):
        git.commit()
    scratch.git(Path(moved), "worktree", "repair", str(worktree))
    assert git.commit() == commit


def test_variables_of_a_hook_are_not_followed(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, other = git.commit(), tmp_path / "hooked"
    other.mkdir()
    (other / "different").touch()
    assert scratch.make_repository(other) != commit
    monkeypatch.setenv("GIT_DIR", f"{other}/.git")
    monkeypatch.setenv("GIT_INDEX_FILE", f"{other}/.git/index")
    assert git.commit() == commit and git.git("ls-files").split() == ["kept.json"]
    assert repository.is_dir()


def test_file_of_a_commit_below_the_top_or_lost(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "part").mkdir()
    (repository / "part/reports.json").write_text("[1]")
    commit = scratch.commit(repository, "A project below the top")
    monkeypatch.chdir(repository / "part")
    assert git.show(commit, Path("reports.json")) == "[1]"
    assert git.show(f"{commit}^", Path("reports.json")) is None
    digest = scratch.git(repository, "rev-parse", f"{commit}:part/reports.json")
    (repository / ".git/objects" / digest[:2] / digest[2:]).unlink()
    with pytest.raises(GitFailed, match=f"reports.json of {commit[:9]} cannot be read.*git fsck"):
        git.show(commit, Path("reports.json"))


def test_refusals_of_git_name_the_way_out(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(GitFailed, match=f"safe.directory {repository}` permits it"):
        patch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        git.commit()
    with monkeypatch.context() as patch, pytest.raises(GitFailed, match="git does not start: No such file"):
        patch.setenv("PATH", str(repository))
        git.commit()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GitFailed, match="in no git repository.*git init"):
        git.commit()
    scratch.git(tmp_path, "init", "--quiet")
    with pytest.raises(GitFailed, match="has no commit yet: `git add"):
        git.commit()
