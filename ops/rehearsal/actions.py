"""Workflow files as GitHub reads them, as far as ours go: jobs in the order of their needs, steps, expressions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from app.errors import OnTimeError

WORKFLOWS = Path(".github/workflows")
STATUS = {"always": {"success", "failure"}, "failure": {"failure"}, "success": {"success"}}


class WorkflowUnknown(OnTimeError):
    """A workflow holds what the rehearsal does not understand; it must not pass for something else."""


@dataclass(frozen=True)
class Step:
    """One step: a command or an action, its environment and inputs with their expressions as they stand."""

    command: str
    uses: str
    env: dict[str, str]
    inputs: dict[str, str]
    condition: str
    id: str


@dataclass(frozen=True)
class Job:
    """One job: steps of its own, or a call of another workflow of this repository."""

    name: str
    needs: list[str]
    condition: str
    env: dict[str, str]
    environment: str
    outputs: dict[str, str]
    steps: list[Step]
    uses: str
    inputs: dict[str, str]
    secrets: dict[str, str]


@dataclass(frozen=True)
class Workflow:
    """A workflow's jobs, each after those that it needs."""

    name: str
    env: dict[str, str]
    jobs: list[Job]


def parse(text: str) -> dict[str, Any]:
    """Return a workflow's text as mappings and lists of texts: `on` is a word here, as it is to GitHub."""
    return dict(yaml.load(text, yaml.BaseLoader))


def _texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: str(value) for key, value in (values or {}).items()}


def _step(step: dict[str, Any]) -> Step:
    return Step(
        command=step.get("run", "").strip(),
        uses=step.get("uses", ""),
        env=_texts(step.get("env")),
        inputs=_texts(step.get("with")),
        condition=str(step.get("if", "")),
        id=step.get("id", ""),
    )


def _job(name: str, job: dict[str, Any]) -> Job:
    needs = job.get("needs", [])
    return Job(
        name=name,
        needs=[needs] if isinstance(needs, str) else needs,
        condition=str(job.get("if", "")),
        env=_texts(job.get("env")),
        environment=job.get("environment", ""),
        outputs=_texts(job.get("outputs")),
        steps=[_step(step) for step in job.get("steps", [])],
        uses=job.get("uses", ""),
        inputs=_texts(job.get("with")),
        secrets=_texts(job.get("secrets")),
    )


def load(path: Path) -> Workflow:
    """Return a workflow file with its jobs in an order in which they can run."""
    content = parse(path.read_text(encoding="utf-8"))
    waiting = [_job(name, job) for name, job in content["jobs"].items()]
    ordered: list[Job] = []
    while waiting:
        ready = [job for job in waiting if set(job.needs) <= {done.name for done in ordered}]
        if not ready:
            raise WorkflowUnknown(f"{path}: the jobs {[job.name for job in waiting]} need what is not there.")
        ordered += ready
        waiting = [job for job in waiting if job not in ready]
    return Workflow(content["name"], _texts(content.get("env")), ordered)


def resolve(text: str, context: Mapping[str, Any]) -> str:
    """Return a text with its `${{ }}` replaced by what they stand for in this context."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda match: _text(evaluate(match[1], context)), text)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value if value is not None else "")


def evaluate(expression: str, context: Mapping[str, Any]) -> Any:
    """Return the value of an expression of literals, names, `==`, `!=`, `&&` and `||`; raise on anything else."""
    for operator in ("||", "&&"):
        left, found, right = expression.partition(operator)
        if found:
            first = evaluate(left, context)
            return first if bool(first) == (operator == "||") else evaluate(right, context)
    for operator in ("==", "!="):
        left, found, right = expression.partition(operator)
        if found:
            return (_text(evaluate(left, context)) == _text(evaluate(right, context))) == (operator == "==")
    term = expression.strip()
    if literal := re.fullmatch("'([^']*)'", term):
        return literal[1]
    if not re.fullmatch(r"[a-z][\w-]*(\.[\w-]+)+", term) or term.split(".")[0] not in context:
        raise WorkflowUnknown(f"the rehearsal does not understand the expression {term!r}.")
    value: Any = context
    for part in term.split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return value


def wanted(condition: str, status: str, context: Mapping[str, Any]) -> bool:
    """Return whether a job or step with this `if` runs when what came before ended with `status`."""
    function, _, rest = condition.partition("&&")
    named = re.fullmatch(r"(always|failure|success)\(\)", function.strip())
    if named:
        return status in STATUS[named[1]] and (not rest or bool(evaluate(rest, context)))
    return status == "success" and (not condition or bool(evaluate(condition, context)))
