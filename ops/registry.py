"""The registry's commands: compare, promote, require."""

from __future__ import annotations

import argparse
import json
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from app.errors import ModelUnavailable, OnTimeError
from stages import params, tracking
from stages.decision import Decision, decide_floors
from stages.errors import run
from stages.metrics import HIGHER_IS_BETTER
from stages.params import Params

STAGING, PRODUCTION, PREVIOUS = "staging", "production", "previous"


class PromotionRefused(OnTimeError):
    """The gate did not accept the model."""

    exit_code = 8


def by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """Return the version that an alias names, if it names one."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as err:
        if err.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def require(client: MlflowClient, p: Params) -> ModelVersion:
    """Return the Production version, or raise ModelUnavailable with the command that makes one."""
    version = by_alias(client, p.register_.model, PRODUCTION)
    if version is None:
        staged = by_alias(client, p.register_.model, STAGING)
        command = (
            f"`make promote` makes version {staged.version} Production" if staged else "`make repro` makes a model"
        )
        raise ModelUnavailable(
            f"no version of {p.register_.model} is Production in {tracking.tracking_uri()}; {command}."
        )
    return version


def promote(client: MlflowClient, p: Params, number: str | None) -> str:
    """Make Staging, or the version `number`, the Production version if it reaches the floors; return what was done."""
    name = p.register_.model
    challenger = client.get_model_version(name, number) if number else by_alias(client, name, STAGING)
    if challenger is None:
        raise ModelUnavailable(f"no version of {name} is Staging in {tracking.tracking_uri()}; `make repro` makes one.")
    champion = by_alias(client, name, PRODUCTION)
    if champion is not None and champion.version == challenger.version:
        return f"Version {champion.version} of {name} is Production already."
    decision = evidence(client, challenger, p)
    with tracking.stage_run("decision") as log:
        log.tags({"decision": "accepted" if decision.accepted else "refused", "challenger": str(challenger.version)})
        log.metrics(**{check.name.replace("(", "").replace(")", ""): check.value for check in decision.checks})
    if not decision.accepted:
        raise PromotionRefused(f"version {challenger.version} of {name} is refused: {'; '.join(decision.reasons)}.")
    if champion is not None:
        client.set_registered_model_alias(name, PREVIOUS, champion.version)
    client.set_registered_model_alias(name, PRODUCTION, challenger.version)
    return f"Version {challenger.version} of {name} is Production. `make serve` serves it."


def evidence(client: MlflowClient, version: ModelVersion, p: Params) -> Decision:
    """Judge a version by the metrics that `evaluate` logged with its evaluation."""
    path = client.download_artifacts(version.run_id or "", "metrics.json")
    with open(path, encoding="utf-8") as file:
        return decide_floors(json.load(file), p.gate)


def compare(client: MlflowClient, last: int = 5) -> str:
    """Return the last pipeline runs side by side: parameters that differ, metrics with the best one marked."""
    runs = tracking.find_runs(client, {tracking.STAGE_TAG: "pipeline"})
    runs = [run for run in runs if "test.roc_auc" in run.data.metrics][:last]
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
    return table(rows)


def table(rows: list[list[Any]]) -> str:
    """Return rows as aligned columns."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(f"{cell!s:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main() -> None:
    """Run one command of the registry."""
    parser = argparse.ArgumentParser(prog="python -m ops.registry")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("compare", help="the last pipeline runs side by side")
    commands.add_parser("require", help="fail when nothing is Production")
    promotion = commands.add_parser("promote", help="Staging, or a version, to Production")
    promotion.add_argument("version", nargs="?")
    promotion.add_argument("--if-none", action="store_true", help="only when nothing is Production")
    arguments = parser.parse_args()
    p, client = params.load(), tracking.connect()
    if arguments.command == "compare":
        print(compare(client))
    elif arguments.command == "require":
        require(client, p)
    elif not (arguments.if_none and by_alias(client, p.register_.model, PRODUCTION)):
        print(promote(client, p, arguments.version))


if __name__ == "__main__":
    run(main)
