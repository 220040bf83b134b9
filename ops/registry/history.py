"""What MLflow knows of Production and of the runs behind versions, as text."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.entities import Run
from tabulate import tabulate

from ops.registry import production as pointer
from stages import tracking
from stages.metrics import HIGHER_IS_BETTER


def text(client: MlflowClient, name: str) -> str:
    """Return who was Production, from when to when, and why; and what was deployed where."""
    moves = pointer.moves(client, name)
    if not moves:
        return f"No version of {name} has been Production yet: `make promote` makes one."
    deployed = deployments(client, name)
    return _production(moves) + (f"\n\n{deployed}" if deployed else "")


def _production(moves: list[dict[str, str]]) -> str:
    rows = [["version", "from", "until", "by", "decision", "why"]]
    ends = [_clock(move["at"]) for move in moves[1:]] + ["now"]
    for move, end in zip(moves, ends, strict=True):
        rows.append([move["to"], _clock(move["at"]), end, move["action"], move["run_id"][:8], move["why"]])
    return table(rows)


def record_deployment(client: MlflowClient, run_id: str, name: str, image: str, host: str) -> None:
    """Add to a decision's run what was to be deployed, and where."""
    facts = {"image": image, "host": host, "at": str(int(time.time() * 1000)), "model": name}
    for key, value in facts.items():  # `model` last: the deployment is found by it
        client.set_tag(run_id, f"deployed.{key}", value)


def deployments(client: MlflowClient, name: str) -> str:
    """Return every deployment that was tried, oldest first; empty without one."""
    runs = tracking.find_runs(client, {tracking.STAGE_TAG: "decision", "deployed.model": name})
    if not runs:
        return ""
    rows = [["image", "host", "at", "by", "verdict", "decision", "why"]]
    for tags, run_id in sorted(((r.data.tags, r.info.run_id) for r in runs), key=lambda r: int(r[0]["deployed.at"])):
        facts = [tags["deployed.image"], tags["deployed.host"], _clock(tags["deployed.at"])]
        rows.append([*facts, tags["action"], tags["decision"], run_id[:8], tags["reasons"][:200]])
    return table(rows)


def _clock(milliseconds: str) -> str:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def pipeline_runs(client: MlflowClient, versions: list[str], last: int) -> list[Run]:
    """Return the pipeline runs behind these versions, or the last complete ones."""
    runs = tracking.find_runs(client, {tracking.STAGE_TAG: "pipeline"})
    runs = [run for run in runs if "test.roc_auc" in run.data.metrics]
    if not versions:
        return runs[:last]
    newest = {run.data.tags.get("model.version"): run for run in reversed(runs)}
    return [newest[version] for version in versions if version in newest]


def compare(client: MlflowClient, versions: list[str], last: int = 5) -> str:
    """Return pipeline runs side by side: parameters that differ, metrics with the best one marked, links to the UI."""
    runs = pipeline_runs(client, versions, last)
    if not runs:
        return "MLflow holds no complete pipeline run of that kind yet: `make repro` makes one."
    names = sorted({key for run in runs for key in run.data.params})
    rows: list[list[str]] = [["run", *(run.info.run_id[:8] for run in runs)]]
    rows.append(["commit", *(run.data.tags.get("git.commit", "")[:8] for run in runs)])
    rows.append(["model version", *(run.data.tags.get("model.version", "") for run in runs)])
    for name in names:
        values = [str(run.data.params.get(name, "-")) for run in runs]
        if len(set(values)) > 1:
            rows.append([name, *(value[:20] for value in values)])
    for metric, higher in HIGHER_IS_BETTER.items():
        numbers = [run.data.metrics.get(f"test.{metric}", float("nan")) for run in runs]
        best = (max if higher else min)(numbers)
        rows.append([metric, *(f"{number:.4f}{' *' if number == best else '  '}" for number in numbers)])
    return "\n".join([table(rows), "", *(pointer.link(run.info.run_id) for run in runs)])


def table(rows: list[list[str]]) -> str:
    """Return rows as aligned columns."""
    return tabulate(rows, tablefmt="plain", disable_numparse=True)
