"""The history of Production and the runs of versions from MLflow, as text."""

import time
from datetime import UTC, datetime
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run
from tabulate import tabulate

from app.errors import ModelUnavailable
from ops.registry import aliases
from stages.evaluation.metrics import HIGHER_IS_BETTER
from stages.tracking import mlflow_runs


def describe_history(client: MlflowClient, name: str) -> str:
    """Return the Production versions with their periods and reasons, what differs now, and the deployments."""
    known = collect_history(client, name)
    moves, now = known["moves"], known["production"]
    if not moves and not now:
        return f"No version of {name} has been Production yet: `make promote` makes one."
    stays = bool(moves) and moves[-1]["to"] == now and not moves[-1]["changed"]
    rows = [["version", "from", "until", "by", "decision", "why"]]
    ends = [*(_clock(move["at"]) for move in moves[1:]), "now" if stays else "unknown"]
    for move, end in zip(moves, ends, strict=False):
        number = f"{move['to']} ({move['changed']})" if move["changed"] else move["to"]
        rows.append([number, _clock(move["at"]), end, move["action"], move["run_id"][:8], move["why"]])
    parts = [table(rows)]
    if not stays:
        state = f"Version {now} of {name} is Production" if now else f"No version of {name} is Production"
        parts.append(f"{state} now, by no decision that is recorded here; `make promote` makes one.")
    if known["deployments"]:
        deployed = [["image", "host", "at", "by", "verdict", "decision", "why"]]
        for one in known["deployments"]:
            where = [one["image"], one["host"], _clock(one["at"])]
            deployed.append([*where, one["action"], one["verdict"], one["run_id"][:8], one["reasons"][:200]])
        parts.append(table(deployed))
    return "\n\n".join(parts)


def collect_history(client: MlflowClient, name: str) -> dict[str, Any]:
    """Return the moves of Production and the deployments, oldest first, and the version that is Production now.

    Times are in milliseconds since 1970. `changed` says if the version was deleted or replaced since.
    """
    moves = [move | {"changed": aliases.changed(client, name, move)} for move in aliases.moves(client, name)]
    now = aliases.read_aliases(client, name).get(aliases.PRODUCTION, "")
    return {"moves": moves, "deployments": deployments(client, name), "production": now}


def record_deployment(client: MlflowClient, run_id: str, name: str, image: str, host: str) -> None:
    """Record a deployment in the decision's run."""
    facts = {"image": image, "host": host, "at": str(int(time.time() * 1000)), "model": name}
    for key, value in facts.items():  # `model` last: it marks the record as complete
        client.set_tag(run_id, f"deployed.{key}", value)


def deployments(client: MlflowClient, name: str) -> list[dict[str, str]]:
    """Return all attempted deployments, oldest first: image, host, at (ms), action, verdict, reasons, run id."""
    found = []
    for run in mlflow_runs.find_runs(client, {mlflow_runs.STAGE_TAG: "decision", "deployed.model": name}):
        tags = run.data.tags
        known = {key: tags[f"deployed.{key}"] for key in ("image", "host", "at")}
        known |= {"action": tags["action"], "verdict": tags["decision"], "reasons": tags["reasons"]}
        found.append(known | {"run_id": run.info.run_id})
    return sorted(found, key=lambda one: int(one["at"]))


def _clock(milliseconds: str) -> str:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def pipeline_runs(client: MlflowClient, versions: list[str], last: int) -> list[Run]:
    """Return the pipeline runs of versions, or the last complete ones; raise ModelUnavailable if one is missing."""
    runs = mlflow_runs.find_runs(client, {mlflow_runs.STAGE_TAG: "pipeline"})
    runs = [run for run in runs if "test.roc_auc" in run.data.metrics]
    if not versions:
        return runs[:last]
    newest = {run.data.tags.get("model.version"): run for run in reversed(runs)}
    absent = [version for version in versions if version not in newest]
    if absent:
        raise ModelUnavailable(f"no complete pipeline run made version {', '.join(absent)}: `make compare` lists runs.")
    return [newest[version] for version in versions]


def comparison(runs: list[Run]) -> list[dict[str, Any]]:
    """Return the run, commit, model version, parameters and test metrics of pipeline runs."""
    made = []
    for run in runs:
        tags, metrics = run.data.tags, {name: run.data.metrics.get(f"test.{name}") for name in HIGHER_IS_BETTER}
        known = {"commit": tags.get("git.commit", ""), "version": tags.get("model.version", "")}
        made.append({"run_id": run.info.run_id} | known | {"params": run.data.params, "metrics": metrics})
    return made


def compare_runs(runs: list[Run]) -> str:
    """Compare pipeline runs: differing parameters, metrics with the best one marked, links to the UI."""
    if not runs:
        return "MLflow holds no complete pipeline run yet: `make repro` makes one."
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
    return "\n".join([table(rows), "", *(aliases.link(run.info.run_id) for run in runs)]) + aliases.ui_hint()


def table(rows: list[list[str]]) -> str:
    """Return rows as aligned columns."""
    return tabulate(rows, tablefmt="plain", disable_numparse=True)
