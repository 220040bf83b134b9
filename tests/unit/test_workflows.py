"""The workflows hold no logic, no unpinned code and no more rights than they need; so does what checks them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ops.rehearsal.actions import WorkflowUnknown, evaluate, load, parse, resolve, wanted
from tests.conftest import ROOT

FOLDER = ROOT / ".github/workflows"
FILES = sorted(FOLDER.glob("*.yml"))
ACTIONS = sorted((ROOT / ".github/actions").glob("*/action.yml"))
VERBS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
MAY_WRITE = {  # who may write what; no other job may write anything
    ("codeql.yml", "analyze"): {"security-events"},
    ("comment.yml", "comment"): {"pull-requests"},
    ("deploy.yml", "deploy"): {"deployments"},
    ("release.yml", "image"): {"attestations", "id-token", "packages"},
    ("release.yml", "production"): {"deployments"},
    ("release.yml", "staging"): {"deployments"},
    ("retrain.yml", "retrain"): set(),
    ("rollback.yml", "rollback"): {"deployments"},
}


def steps_of(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the steps of a workflow or of a composite action."""
    jobs = content.get("jobs", {"": content.get("runs", {})})
    return [step for job in jobs.values() for step in job.get("steps", [])]


def unpinned(text: str) -> list[str]:
    """Return the `uses` that name neither a commit, with the version beside it, nor a file of this repository."""
    found = re.findall(r"^\s*-?\s*uses: (\S+)(.*)$", text, re.M)
    return [
        name
        for name, comment in found
        if not name.startswith("./") and not (PINNED.fullmatch(name) and re.fullmatch(r" # v\d+(\.\d+)*", comment))
    ]


def careless(content: dict[str, Any]) -> list[str]:
    """Return what a workflow grants or leaves open: permissions, timeouts, concurrency, credentials."""
    found = [] if content.get("permissions") == {} else ["permissions at the top"]
    found += [] if "concurrency" in content or set(content["on"]) == {"workflow_call"} else ["no concurrency"]
    for name, job in content["jobs"].items():
        if "permissions" not in job or not isinstance(job["permissions"], dict):
            found.append(f"{name}: permissions")
        if "uses" not in job and not 0 < int(job.get("timeout-minutes", 0)) <= 60:
            found.append(f"{name}: timeout")
        if job.get("secrets") == "inherit":
            found.append(f"{name}: inherits secrets")
        found += [f"{name}: continue-on-error" for part in [job, *job.get("steps", [])] if "continue-on-error" in part]
    for step in steps_of(content):
        if step.get("uses", "").startswith("actions/checkout@"):
            found += [] if step.get("with", {}).get("persist-credentials") == "false" else ["keeps credentials"]
    return found


def not_a_verb(content: dict[str, Any]) -> list[str]:
    """Return the commands that are not `make` with one verb of the Makefile and nothing else."""
    commands = [step["run"].strip() for step in steps_of(content) if "run" in step]
    return [command for command in commands if not (command.startswith("make ") and command[5:] in VERBS)]


def writes(content: dict[str, Any]) -> dict[str, set[str]]:
    """Return by job what it may write."""
    return {
        name: {right for right, level in job.get("permissions", {}).items() if level == "write"}
        for name, job in content["jobs"].items()
    }


def read(path: Path) -> dict[str, Any]:
    """Return a workflow or an action."""
    return parse(path.read_text())


@pytest.mark.parametrize("path", FILES + ACTIONS, ids=lambda path: path.relative_to(ROOT / ".github").as_posix())
def test_everything_used_is_pinned_and_every_command_is_a_verb(path: Path) -> None:
    assert unpinned(path.read_text()) == []
    assert not_a_verb(read(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_grants_little_and_ends(path: Path) -> None:
    content = read(path)
    assert careless(content) == []
    for job, rights in writes(content).items():
        assert rights <= MAY_WRITE.get((path.name, job), set()), job


def test_main_is_never_cancelled_and_branches_are() -> None:
    for name in ("ci.yml", "codeql.yml"):
        assert read(FOLDER / name)["concurrency"]["cancel-in-progress"] == "${{ github.ref != 'refs/heads/main' }}"
    for path in FILES:
        cancel = read(path).get("concurrency", {}).get("cancel-in-progress", "false")
        assert path.name in ("ci.yml", "codeql.yml") or cancel == "false", path.name


def test_a_fork_s_run_gets_no_secret_and_no_right_to_write() -> None:
    text = (FOLDER / "ci.yml").read_text()
    assert "secrets." not in text and "pull_request_target" not in "".join(path.read_text() for path in FILES)
    assert not any(writes(read(FOLDER / "ci.yml")).values())
    comment = (FOLDER / "comment.yml").read_text()
    assert "secrets." not in comment and "head_sha" not in comment and "ref:" not in comment


def test_a_called_workflow_gets_the_inputs_and_secrets_that_it_declares() -> None:
    for path in FILES:
        for job in load(path).jobs:
            if job.uses:
                declared = read(FOLDER / Path(job.uses).name)["on"]["workflow_call"]
                inputs, secrets = declared.get("inputs", {}), declared.get("secrets", {})
                assert job.inputs.keys() <= inputs.keys() and job.secrets.keys() == secrets.keys(), job.name
                required = {name for name, entry in inputs.items() if entry.get("required")}
                assert required <= job.inputs.keys(), job.name


@pytest.mark.parametrize("verb", ["promote", "rollback", "image", "undeploy-to", "deploy"])
def test_what_a_form_holds_is_text_and_no_part_of_a_command(verb: str, tmp_path: Path) -> None:
    evil = f"$(shell touch {tmp_path}/made);touch {tmp_path}/made"
    given = dict.fromkeys(("VERSION", "REASON", "IMAGE"), evil)
    command = ["make", "--dry-run", "--old-file=.venv/.ready", verb]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | given, capture_output=True, text=True, check=True)
    assert "python -m ops." in done.stdout
    assert "touch" not in done.stdout and not (tmp_path / "made").exists()


def test_what_a_workflow_gives_to_a_verb_is_not_overwritten_by_the_makefile() -> None:
    own = set(re.findall(r"^(?:export )?(\w+) :?= ", (ROOT / "Makefile").read_text(), re.M))
    assert {"RUN", "BIN"} <= own
    for path in FILES:
        content = read(path)
        parts = [content, *content["jobs"].values(), *steps_of(content)]
        assert not own & {name for part in parts for name in part.get("env", {})}, path.name


def test_where_a_release_publishes_nothing_comes_from_a_cache() -> None:
    for name in ("release.yml", "deploy.yml", "rollback.yml", "retrain.yml"):
        text = (FOLDER / name).read_text()
        assert "actions/cache" not in text and "cache:" not in text, name


def test_production_comes_after_staging_and_staging_after_every_check() -> None:
    jobs = {job.name: job for job in load(FOLDER / "release.yml").jobs}
    assert [job.needs for job in jobs.values()] == [
        [],
        ["ci"],
        ["register"],
        ["register", "image"],
        ["register", "image", "staging"],
    ]
    assert jobs["ci"].uses.endswith("/ci.yml") and read(FOLDER / "release.yml")["on"] == {
        "push": {"branches": ["main"]}
    }


BAD = """
on: push
permissions: write-all
jobs:
  first:
    runs-on: ubuntu-24.04
    permissions: write-all
    steps:
      - uses: actions/checkout@v4
      - uses: actions/cache@27d5ce7f107fe9357f9df03efb73ab90386fccae
      - run: pip install x
      - run: make test || true
      - run: make no-such-verb
      - run: echo ${{ github.head_ref }}
        continue-on-error: true
  second:
    runs-on: ubuntu-24.04
    timeout-minutes: 600
    permissions:
      contents: write
    secrets: inherit
"""


def test_a_bad_workflow_is_refused_for_each_of_its_faults() -> None:
    content = parse(BAD)
    assert unpinned(BAD) == ["actions/checkout@v4", "actions/cache@27d5ce7f107fe9357f9df03efb73ab90386fccae"]
    assert len(not_a_verb(content)) == 4
    assert careless(content) == [
        "permissions at the top",
        "no concurrency",
        "first: permissions",
        "first: timeout",
        "first: continue-on-error",
        "second: timeout",
        "second: inherits secrets",
        "keeps credentials",
    ]
    assert writes({"jobs": {"second": content["jobs"]["second"]}}) == {"second": {"contents"}}


def test_expressions_are_those_of_github_and_others_are_refused() -> None:
    context = {"inputs": {"base": ""}, "github": {"event": {"before": "abc"}, "name": "push"}, "needs": {}}
    assert resolve("${{ inputs.base || github.event.before || 'origin/main' }}", context) == "abc"
    assert resolve("v${{ needs.a.outputs.version }}!", context) == "v!"
    assert evaluate("github.name == 'push' && github.event.before != ''", context) is True
    for unknown in ("hashFiles('x')", "secrets.KEY", "1 + 1"):
        with pytest.raises(WorkflowUnknown):
            evaluate(unknown, context)


def test_a_step_after_a_failure_runs_only_when_it_asks_for_it() -> None:
    context = {"inputs": {"kind": "a"}}
    assert [wanted("", status, context) for status in ("success", "failure")] == [True, False]
    assert [wanted("failure()", status, context) for status in ("success", "failure")] == [False, True]
    assert wanted("always() && inputs.kind == 'a'", "failure", context)
    assert not wanted("always() && inputs.kind == 'b'", "failure", context)
    assert not wanted("inputs.kind == 'b'", "success", context)


def test_jobs_come_after_what_they_need(tmp_path: Path) -> None:
    job = "runs-on: x\n    steps: []\n"
    (tmp_path / "x.yml").write_text(f"name: x\njobs:\n  last:\n    needs: [first]\n    {job}  first:\n    {job}")
    assert [job.name for job in load(tmp_path / "x.yml").jobs] == ["first", "last"]
    (tmp_path / "y.yml").write_text(f"name: y\njobs:\n  last:\n    needs: nobody\n    {job}")
    with pytest.raises(WorkflowUnknown):
        load(tmp_path / "y.yml")
