"""What stands for GitHub's runners: each job in a clean clone, its verbs with their environment, caches, artifacts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ops.rehearsal import actions
from ops.rehearsal.actions import Job, Step
from ops.rehearsal.scratch import git
from ops.release.publish import PREDICATES

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {"make test", "make lint", "make packages", "make audit"}  # the rehearsal is a test; audit asks a service
FOREIGN = ("MLFLOW_", "GITHUB_", "ONTIME_", "PYTEST_", "DVC_", "MAKE", "MFLAGS")


@dataclass(frozen=True)
class Done:
    """What became of a step: `ok`, `failed`, `skipped`, or `elsewhere` for what is not rehearsed."""

    job: str
    step: str
    status: str
    seconds: float = 0.0
    output: str = ""


@dataclass(frozen=True)
class Event:
    """What a workflow is started by: the branch, GitHub's context, inputs, secrets."""

    branch: str
    github: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)


def _copy_new(source: str, target: str) -> None:
    if not Path(target).exists():  # named after its content, and write-protected
        shutil.copy2(source, target)


class Runner:
    """Runs workflows of a project on clones of `origin`; `say` is told of each step as it ends."""

    def __init__(self, origin: Path, work: Path, programs: Path, say: Callable[[Done], None]) -> None:
        self.origin, self.work, self.programs, self.say = origin, work, programs, say
        self.variables: dict[str, str] = {}
        self.environments: dict[str, dict[str, str]] = {}
        self.cache = work / "cache"
        self.state = work / "github.json"
        self.repository = "team/on-time"
        self.clones = 0

    def run(self, file: str, event: Event, only: tuple[str, ...] = (), run_id: str = "1") -> list[Done]:
        """Run a workflow, or some of its jobs, and return what became of each step."""
        return self._workflow(file, event, only, run_id, "")

    def _workflow(self, file: str, event: Event, only: tuple[str, ...], run_id: str, caller: str) -> list[Done]:
        results: dict[str, tuple[str, dict[str, str]]] = {}
        workflow = actions.load(ROOT / actions.WORKFLOWS / file)
        done: list[Done] = []
        for job in workflow.jobs:
            if only and job.name not in only:
                continue
            context = self._context(event, {name: {"outputs": outs} for name, (_, outs) in results.items()})
            before = [results[name][0] for name in job.needs if name in results]
            status = "success" if all(value == "success" for value in before) else "failure"
            if not actions.wanted(job.condition, status, context):
                results[job.name] = ("skipped", {})
                done.append(Done(f"{caller}{job.name}", "", "skipped"))
                self.say(done[-1])
                continue
            run = self._call if job.uses else self._job
            named = replace(job, name=f"{caller}{job.name}")
            steps, outputs = run(named, event, context, workflow.env, run_id)
            failed = any(step.status == "failed" for step in steps)
            results[job.name] = ("failure" if failed else "success", outputs)
            done += steps
        return done

    def _context(self, event: Event, needs: Mapping[str, Any]) -> dict[str, Any]:
        github = {"repository": self.repository, "ref": f"refs/heads/{event.branch}", "token": "none", "actor": "a"}
        return {
            "github": github | event.github,
            "inputs": event.inputs,
            "secrets": event.secrets,
            "vars": dict(self.variables),
            "needs": needs,
            "steps": {},
            "env": {},
        }

    def _call(
        self, job: Job, event: Event, context: dict[str, Any], _: dict[str, str], run_id: str
    ) -> tuple[list[Done], dict[str, str]]:
        """Run the workflow that a job calls, with the inputs and secrets that it passes on and no others."""
        inputs = {name: actions.resolve(value, context) for name, value in job.inputs.items()}
        secrets = {name: actions.resolve(value, context) for name, value in job.secrets.items()}
        called = Event(event.branch, event.github, inputs, secrets)
        return self._workflow(Path(job.uses).name, called, (), run_id, f"{job.name} / "), {}

    def _job(
        self, job: Job, event: Event, context: dict[str, Any], env: dict[str, str], run_id: str
    ) -> tuple[list[Done], dict[str, str]]:
        self.clones += 1
        clone = self.work / f"clone-{self.clones:02}"
        git(self.work, "clone", "--quiet", "--branch", event.branch, str(self.origin), str(clone))
        (clone / ".venv").symlink_to(ROOT / ".venv")
        context["vars"] |= self.environments.get(actions.resolve(job.environment, context), {})
        for layer in (env, job.env):
            context["env"] |= {name: actions.resolve(value, context) for name, value in layer.items()}
        done: list[Done] = []
        status = "success"
        for step in job.steps:
            name = step.command or step.uses.partition("@")[0]
            if not actions.wanted(step.condition, status, context):
                done.append(Done(job.name, name, "skipped"))
            elif step.uses:
                done.append(Done(job.name, name, self._action(step, context, clone, run_id)))
            elif step.command in ELSEWHERE:
                done.append(Done(job.name, name, "elsewhere"))
            else:
                done.append(self._verb(job, step, context, clone))
            status = "failure" if done[-1].status == "failed" else status
            self.say(done[-1])
        if status == "success" and any("actions/cache@" in step.uses for step in job.steps):
            shutil.copytree(clone / ".dvc/cache", self.cache, copy_function=_copy_new, dirs_exist_ok=True)
        return done, {name: actions.resolve(value, context) for name, value in job.outputs.items()}

    def _verb(self, job: Job, step: Step, context: dict[str, Any], clone: Path) -> Done:
        outputs = self.work / "output"
        outputs.write_text("", encoding="utf-8")
        env = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        env |= {"PATH": f"{self.programs}:{env['PATH']}", "PRETEND_GITHUB": str(self.state), "CI": "true"}
        env |= {"GITHUB_OUTPUT": str(outputs), "GITHUB_REPOSITORY": self.repository}
        env |= {"GITHUB_SHA": git(clone, "rev-parse", "HEAD")} | context["env"]
        env |= {name: actions.resolve(value, context) for name, value in step.env.items()}
        command = ["make", "--no-print-directory", "--old-file=.venv/.ready", *step.command.split()[1:]]
        started = time.perf_counter()
        with tempfile.TemporaryFile("w+") as log:
            ended = subprocess.run(command, cwd=clone, env=env, stdout=log, stderr=subprocess.STDOUT, check=False)
            log.seek(0)
            output = log.read()
        lines = [line.partition("=") for line in outputs.read_text(encoding="utf-8").splitlines()]
        context["steps"][step.id] = {"outputs": {name: value for name, _, value in lines}}
        status = "ok" if ended.returncode == 0 else "failed"
        return Done(job.name, step.command, status, time.perf_counter() - started, output)

    def _action(self, step: Step, context: dict[str, Any], clone: Path, run_id: str) -> str:
        """Do what a cache, an artifact and an attestation do; no other action has a stand-in."""
        action = step.uses.partition("@")[0]
        inputs = {name: actions.resolve(value, context) for name, value in step.inputs.items() if name != "key"}
        if action.startswith("actions/cache") and self.cache.exists():
            shutil.copytree(self.cache, clone / inputs["path"])
        elif action == "actions/upload-artifact" and (clone / inputs["path"]).exists():
            self.change(
                lambda s: s["artifacts"].setdefault(run_id, {}).update({inputs["name"]: str(clone / inputs["path"])})
            )
        elif action.startswith("actions/attest"):
            what = PREDICATES["bill of materials" if inputs.get("sbom-path") else "provenance"]
            self.change(lambda state: state["attested"].append(f"{inputs['subject-digest']} {what}"))
        else:
            return "elsewhere"
        return "ok"

    def change(self, how: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Change what the stand-in for GitHub knows, and return it."""
        state = dict(json.loads(self.state.read_text(encoding="utf-8")))
        how(state)
        self.state.write_text(json.dumps(state, indent=1), encoding="utf-8")
        return state
