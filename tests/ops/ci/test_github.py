"""What the workflows tell GitHub, through a stand-in for `gh` that keeps what it was told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ops.ci import github
from tests.conftest import ROOT
from tests.support.repositories.scratch import commit, git
from tests.support.servers import gh

SHA = "c" * 40
RUN = {"head_sha": SHA, "head_branch": "idea", "head_repository": {"owner": {"login": "stranger"}}}
RUN |= {"run_number": 7, "html_url": "https://example.com/7", "conclusion": "failure"}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Any]]:
    """A GitHub with one pull request from a fork and one run with a report; returns a function that reads it."""
    programs = gh.install(tmp_path / "bin", tmp_path / "github.json", ROOT)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setenv("PRETEND_GITHUB", str(tmp_path / "github.json"))
    monkeypatch.setenv("GITHUB_REPOSITORY", "team/on-time")
    (tmp_path / "report").mkdir()
    (tmp_path / "report/report.md").write_text("### Gate: refused\n")
    pull = {"number": 12, "head": {"label": "stranger:idea", "sha": SHA}}
    known = {"runs": {"70": RUN}, "artifacts": {"70": {"report": str(tmp_path / "report")}}, "pulls": [pull]}
    gh.write(gh.EMPTY | known | {"comments": {"12": [{"id": 1, "body": "Nice!", "user": {"type": "User"}}]}})
    return gh.read


def test_a_pull_request_has_one_comment(state: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    github.comment("70")
    (tmp_path / "report/report.md").write_text("### Gate: passed\n")
    github.comment("70")
    theirs, ours = state()["comments"]["12"]
    assert theirs["body"] == "Nice!"
    assert "Gate: passed" in ours["body"] and "refused" not in ours["body"]
    assert "**failure** ([run 7](https://example.com/7))" in ours["body"], "the verdict is GitHub's, not the report's"


def test_an_earlier_run_says_nothing(state: Callable[[], dict[str, Any]]) -> None:
    gh.write(state() | {"pulls": [{"number": 12, "head": {"label": "stranger:idea", "sha": "d" * 40}}]})
    assert "nothing to comment on" in github.comment("70")
    assert len(state()["comments"]["12"]) == 1


def test_a_run_without_a_report_is_said_to_have_none(state: Callable[[], dict[str, Any]]) -> None:
    gh.write(state() | {"artifacts": {}})
    github.comment("70")
    assert "ended before it made a report" in state()["comments"]["12"][1]["body"]


def test_a_stranger_s_report_is_harmless() -> None:
    text = github.harmless(f"@everyone [win](https://bad.example) {github.MARKER} http://bad.example " + "x" * 70_000)
    assert "@" not in text and "](" not in text and "://" not in text and "<!--" not in text
    assert len(text) < 65_536


def test_a_setting_that_no_workflow_gave_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_SHA", raising=False)
    with pytest.raises(github.GitHubRefused, match="GITHUB_SHA is not set"):
        github.setting("GITHUB_SHA")


def test_a_deployment_has_version_and_image(
    state: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_SHA", SHA)
    github.deployment("production", "7", "ghcr.io/t/o@sha256:1", "release")
    (made,) = state()["deployments"]
    assert made["payload"] == {"model_version": "7", "image": "ghcr.io/t/o@sha256:1", "reason": "release"}
    assert (made["environment"], made["ref"], made["statuses"][0]["state"]) == ("production", SHA, "success")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose main is at a shared place."""
    project = tmp_path / "project"
    (project / "reports").mkdir(parents=True)
    (project / "build/report").mkdir(parents=True)
    (project / ".gitignore").write_text("/build\n")
    (project / "build/report/report.md").write_text("### Gate: passed\n")
    for name in ("dvc.lock", "data.dvc", "params.yaml", "reports/metrics.json"):
        (project / name).write_text("old\n")
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    git(project, "init", "--quiet", "--initial-branch=main")
    git(project, "remote", "add", "origin", str(tmp_path / "origin.git"))
    commit(project, "The model")
    git(project, "push", "--quiet", "origin", "main")
    monkeypatch.chdir(project)
    return project


def test_a_retraining_is_proposed_once_and_main_stays(state: Callable[[], dict[str, Any]], project: Path) -> None:
    gh.write(state() | {"pulls": []})
    before = git(project, "rev-parse", "origin/main")
    (project / "dvc.lock").write_text("new\n")
    assert "proposes" in github.propose("drift")
    (project / "dvc.lock").write_text("newer\n")
    assert "has the new model" in github.propose("drift")
    (pull,) = state()["pulls"]
    assert (pull["title"], pull["base"], "Gate: passed" in pull["body"]) == ("Retrain the model", "main", True)
    git(project, "fetch", "--quiet")
    assert git(project, "rev-parse", "origin/main") == before
    assert git(project, "show", "origin/retrain:dvc.lock") == "newer"


def test_commits_of_a_reviewer_stay(state: Callable[[], dict[str, Any]], project: Path, tmp_path: Path) -> None:
    gh.write(state() | {"pulls": []})
    (project / "dvc.lock").write_text("new\n")
    github.propose("drift")
    git(tmp_path, "clone", "--quiet", "--branch", "retrain", "origin.git", "human")
    (tmp_path / "human/params.yaml").write_text("a floor\n")
    head = commit(tmp_path / "human", "Set the floor")
    git(tmp_path / "human", "push", "--quiet", "origin", "retrain")
    (project / "dvc.lock").write_text("newer\n")
    with pytest.raises(github.GitHubRefused, match="retrain has commits of test@example.com, which stay"):
        github.propose("drift")
    assert git(project, "ls-remote", "origin", "refs/heads/retrain").split()[0] == head


def test_the_same_model_again_is_not_proposed(state: Callable[[], dict[str, Any]], project: Path) -> None:
    assert project.is_dir() and "nothing to propose" in github.propose("drift")
    assert len(state()["pulls"]) == 1


def test_outputs_reach_later_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "out"))
    github.output(version="7")
    github.output(digest="sha256:1")
    assert (tmp_path / "out").read_text() == "version=7\ndigest=sha256:1\n"
    monkeypatch.delenv("GITHUB_OUTPUT")
    github.output(version="8")
    assert json.dumps((tmp_path / "out").read_text()).count("version") == 1
