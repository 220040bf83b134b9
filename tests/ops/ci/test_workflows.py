"""Properties of the workflows that zizmor, actionlint and the JSON schemas of `make lint` do not check."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from ops.cli import cli
from tests.conftest import ROOT

FOLDER = ROOT / ".github/workflows"
FILES = sorted(FOLDER.glob("*.yml"))
ACTIONS = sorted((ROOT / ".github/actions").glob("*/action.yml"))
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
VALUE = re.compile(r'"\$[A-Z_]+"|[\w.]+')
"""A value in a command: a variable in quotes, which the shell does not expand further, or a plain word."""
MAY_WRITE = {  # no other job may write anything
    ("codeql.yml", "analyze"): {"security-events"},
    ("comment.yml", "comment"): {"pull-requests"},
    ("deploy.yml", "deploy"): {"deployments"},
    ("docs.yml", "publish"): {"id-token", "pages"},
    ("release.yml", "image"): {"attestations", "id-token", "packages"},
    ("release.yml", "production"): {"deployments"},
    ("release.yml", "staging"): {"deployments"},
    ("rollback.yml", "rollback"): {"deployments"},
}


def parse(text: str) -> dict[str, Any]:
    """Return a workflow as mappings and lists of texts; to GitHub, `on` is a word."""
    return dict(yaml.load(text, yaml.BaseLoader))


def read(name: str) -> dict[str, Any]:
    """Return a workflow of this repository."""
    return parse((FOLDER / name).read_text())


def steps_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the steps of a workflow or of a composite action."""
    jobs = content.get("jobs", {"": content.get("runs", {})})
    return [step for job in jobs.values() for step in job.get("steps", [])]


def without_version(text: str) -> list[str]:
    """Return the pinned actions that do not have their version beside the commit."""
    found = re.findall(r"uses: ([\w./-]+@\S+)(.*)$", text, re.M)
    return [name for name, comment in found if not re.fullmatch(r" # v\d+(\.\d+)*", comment)]


def is_command(line: str) -> bool:
    """Return whether a line is a target of the Makefile, or a command of on-time with options that it has."""
    name, *words = line.split()
    if name == "make":
        return len(words) == 1 and words[0] in TARGETS
    group = cli.commands.get(words[0]) if name == "./on-time" and len(words) > 1 else None
    command = group.get_command(click.Context(group), words[1]) if isinstance(group, click.Group) else None
    if command is None:
        return False
    takes_values = any(isinstance(parameter, click.Argument) for parameter in command.params)
    known = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    for word in words[2:]:
        option, _, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if not option and not takes_values:
            return False
        if (option and option not in known) or (value and not VALUE.fullmatch(value)):
            return False
    return True


def not_commands(content: dict[str, Any]) -> list[str]:
    """Return what a workflow runs besides targets of the Makefile and commands of on-time."""
    return [step["run"] for step in steps_of(content) if "run" in step and not is_command(step["run"])]


def unlimited(content: dict[str, Any]) -> list[str]:
    """Return the jobs without a limit in time or without permissions, and failures that would not be seen."""
    found = []
    for name, job in content["jobs"].items():
        found += [f"{name}: permissions"] if "permissions" not in job else []
        found += [f"{name}: timeout"] if "uses" not in job and not 0 < int(job.get("timeout-minutes", 0)) <= 180 else []
        found += [f"{name}: continue-on-error" for part in [job, *job.get("steps", [])] if "continue-on-error" in part]
    return found


def writes(content: dict[str, Any]) -> dict[str, set[str]]:
    """Return by job what it may write."""
    return {
        name: {right for right, level in job.get("permissions", {}).items() if level == "write"}
        for name, job in content["jobs"].items()
    }


@pytest.mark.parametrize("path", FILES + ACTIONS, ids=lambda path: path.relative_to(ROOT / ".github").as_posix())
def test_every_pin_has_a_version_every_step_a_command(path: Path) -> None:
    assert without_version(path.read_text()) == []
    assert not_commands(parse(path.read_text())) == []


@pytest.mark.parametrize("name", [path.name for path in FILES])
def test_a_workflow_grants_little_and_ends(name: str) -> None:
    content = read(name)
    assert content["permissions"] == {} and unlimited(content) == []
    for job, rights in writes(content).items():
        assert rights <= MAY_WRITE.get((name, job), set()), job


def test_main_is_never_cancelled_and_branches_are() -> None:
    for name in ("ci.yml", "codeql.yml"):
        assert read(name)["concurrency"]["cancel-in-progress"] == "${{ github.ref != 'refs/heads/main' }}"
    for path in FILES:
        content = read(path.name)
        assert "concurrency" in content or set(content["on"]) == {"workflow_call"}, path.name
        cancel = content.get("concurrency", {}).get("cancel-in-progress", "false")
        assert path.name in ("ci.yml", "codeql.yml") or cancel == "false", path.name


def test_the_run_of_a_fork_has_no_secret() -> None:
    ci, comment = ((FOLDER / name).read_text() for name in ("ci.yml", "comment.yml"))
    assert "secrets." not in ci
    assert "secrets." not in comment and "head_sha" not in comment and "ref:" not in comment


def test_a_release_takes_nothing_from_a_cache() -> None:
    for name in ("release.yml", "deploy.yml", "docs.yml", "rollback.yml", "retrain.yml"):
        text = (FOLDER / name).read_text()
        assert "actions/cache" not in text and "cache:" not in text, name


def test_production_follows_staging_and_every_check() -> None:
    content = read("release.yml")
    assert content["on"] == {"push": {"branches": ["main"]}}
    assert content["jobs"]["ci"]["uses"].endswith("/ci.yml")
    assert {name: job.get("needs", []) for name, job in content["jobs"].items()} == {
        "ci": [],
        "register": "ci",
        "image": "register",
        "staging": ["register", "image"],
        "production": ["register", "image", "staging"],
    }


BAD = """
jobs:
  first:
    steps:
      - uses: actions/cache@27d5ce7f107fe9357f9df03efb73ab90386fccae
      - run: pip install x
      - run: make test || true
      - run: make no-such-target
      - run: ./on-time model no-such-command
      - run: ./on-time model promote --no-such-option
      - run: ./on-time model rollback --reason=$REASON
      - run: ./on-time model promote && ./on-time model history
      - run: ./on-time model promote; id
      - run: ./on-time model promote --version=$GIVEN
      - run: ./on-time model promote --version=${{ inputs.version }}
      - run: ./on-time ci check-lock surplus
      - run: echo ${{ github.head_ref }}
        continue-on-error: true
  second:
    timeout-minutes: 600
    permissions:
      contents: write
"""


def test_a_bad_workflow_is_refused_for_each_fault() -> None:
    content = parse(BAD)
    assert without_version(BAD) == ["actions/cache@27d5ce7f107fe9357f9df03efb73ab90386fccae"]
    assert len(not_commands(content)) == 12
    assert unlimited(content) == [
        "first: permissions",
        "first: timeout",
        "first: continue-on-error",
        "second: timeout",
    ]
    assert writes(content)["second"] == {"contents"}


@pytest.mark.parametrize("name", ["deploy.yml", "retrain.yml", "release.yml"])
def test_what_a_form_holds_is_text(name: str, tmp_path: Path) -> None:
    evil = f'"; touch {tmp_path}/made; $(touch {tmp_path}/made) --all'
    (tmp_path / "on-time").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "on-time").chmod(0o755)
    content = read(name)
    given = {
        variable
        for part in [content, *content["jobs"].values(), *steps_of(content)]
        for variable in part.get("env", {})
    }
    commands = [step["run"] for step in steps_of(content) if '"$' in step.get("run", "")]
    assert commands
    for command in commands:
        env = {"PATH": os.environ["PATH"]} | dict.fromkeys(given, evil)
        done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
        words = [word.partition("=")[2] if word.startswith("--") else word for word in done.stdout.splitlines()]
        assert words.count(evil) == command.count('"$') and not (tmp_path / "made").exists()
