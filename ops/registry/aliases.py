"""Production: one alias in MLflow's registry, and the history of the decisions that have moved it.

The alias is the only state. MLflow moves it in one call, so a move happens completely or not at all; which version was
Production before follows from the recorded decisions.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.entities import RunTag
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_USER

from app.addresses import without_password
from app.errors import OnTimeError
from app.model.served import Production
from app.registry import download, registered
from app.registry.registered import DIGEST_TAG, PRODUCTION_TAG
from stages.tracking import mlflow_runs

STAGING, PRODUCTION = "staging", registered.PRODUCTION
PROMOTED_TAG = "promoted.by"
"""Tag of a version: the decision by which it was promoted last."""


class PointerMoved(OnTimeError):
    """Production has changed since the decision was made."""


@dataclass(frozen=True)
class Move:
    """A move of Production from the compared version to another one, with the run of the accepted decision."""

    action: str
    to: str
    origin: str | None
    run_id: str
    why: str


@contextmanager
def _absent() -> Iterator[None]:
    """Suppress MLflow's errors about a model, a version or an alias that does not exist."""
    try:
        yield
    except MlflowException as err:
        if err.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise


def by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """Return the version with an alias, if there is one."""
    with _absent():
        return client.get_model_version_by_alias(name, alias)
    return None


def by_number(client: MlflowClient, name: str, number: str) -> ModelVersion | None:
    """Return the version with this number, if there is one."""
    with _absent():
        return client.get_model_version(name, number)
    return None


def read_aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Return the number of the version that each alias names, if that version exists."""
    versions = {alias: by_alias(client, name, alias) for alias in (STAGING, PRODUCTION)}
    return {alias: str(version.version) for alias, version in versions.items() if version}


def move(client: MlflowClient, name: str, decided: Move) -> None:
    """Make a version Production; raise PointerMoved if the judged champion is not, or if another move came next.

    Of two moves at the same moment, the last one wins and both are recorded.
    """
    now = read_aliases(client, name).get(PRODUCTION)
    if now != decided.origin:
        client.set_tag(decided.run_id, "decision", "outdated")
        raise PointerMoved(
            f"Production of {name} moved from {decided.origin or 'none'} to {now or 'none'} while version {decided.to} "
            "was judged; nothing was changed. Run the command again."
        )
    run, since = client.get_run(decided.run_id), time.time()
    record = Production(
        since=since,
        action=decided.action,
        by=run.data.tags.get(MLFLOW_USER, "unknown"),
        why=decided.why,
        run_id=decided.run_id,
        experiment=run.info.experiment_id,
    )
    # before the alias, so that a service that follows the alias never reads an older record
    client.set_model_version_tag(name, decided.to, PRODUCTION_TAG, record.model_dump_json())
    client.set_registered_model_alias(name, PRODUCTION, decided.to)
    moved = time.time()
    now = read_aliases(client, name).get(PRODUCTION)
    if now == decided.to:
        _record(client, name, decided, moved)
    else:  # the other move is the later one
        _record(client, name, decided, since)
        raise PointerMoved(f"Production of {name} moved to {now or 'none'} right after it moved to {decided.to}.")


def _record(client: MlflowClient, name: str, decided: Move, at: float) -> None:
    """Record a move in the tags of the decision's run, in one call."""
    version = by_number(client, name, decided.to)
    digest = version.tags.get(DIGEST_TAG, "") if version else ""
    facts = {"action": decided.action, "to": decided.to, "from": decided.origin or "", "at": str(int(at * 1000))}
    facts |= {"why": decided.why[:4000], "digest": digest, "model": name}
    client.log_batch(decided.run_id, tags=[RunTag(f"moved.{key}", value) for key, value in facts.items()])
    if version and decided.action == "promote":
        client.set_model_version_tag(name, decided.to, PROMOTED_TAG, decided.run_id)


def complete_record(client: MlflowClient, name: str) -> None:
    """Record the last move if its process ended right after it: the version itself names the decision."""
    version = by_alias(client, name, PRODUCTION)
    record = download.registered(version, PRODUCTION).production if version else None
    if version is None or record is None:
        return
    with _absent():  # the decision's run may be deleted
        tags = client.get_run(record.run_id).data.tags
        if "moved.model" not in tags:
            decided = Move(record.action, str(version.version), tags.get("champion"), record.run_id, record.why)
            _record(client, name, decided, record.since)


def moves(client: MlflowClient, name: str) -> list[dict[str, str]]:
    """Return the moves of Production, oldest first: action, from, to, at (ms), why and the decision's run id."""
    history = []
    for run in mlflow_runs.find_runs(client, {mlflow_runs.STAGE_TAG: "decision", "moved.model": name}):
        tags = {k.removeprefix("moved."): v for k, v in run.data.tags.items() if k.startswith("moved.")}
        history.append(tags | {"run_id": run.info.run_id})
    return sorted(history, key=lambda tags: int(tags["at"]))


def previous(client: MlflowClient, name: str) -> str | None:
    """Return the version that was Production before the present one, if the registry still has it."""
    now = read_aliases(client, name).get(PRODUCTION)
    promotions = [one for one in moves(client, name) if one["to"] == now and one["action"] == "promote"]
    if not promotions or changed(client, name, promotions[-1]):
        return None
    number = promotions[-1]["from"]
    return number if by_number(client, name, number) else None


def changed(client: MlflowClient, name: str, made: dict[str, str]) -> str:
    """Return the change of a moved version since then: deleted, or its number names another bundle."""
    version = by_number(client, name, made["to"])
    if version is None:
        return "deleted"
    return "" if version.tags.get(DIGEST_TAG, "") == made["digest"] else "now another bundle"


def link(run_id: str) -> str:
    """Return the URL of a run in MLflow's UI."""
    uri = without_password(mlflow_runs.tracking_uri())
    base = uri.rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
    return f"{base}/#/experiments/{mlflow_runs.experiment_id()}/runs/{run_id}"


def ui_hint() -> str:
    """Return a hint on starting the UI, if MLflow is a local file."""
    return "" if mlflow_runs.tracking_uri().startswith("http") else " (`make ui` starts the UI)"


def describe(client: MlflowClient, version: ModelVersion, run_id: str, text: str) -> None:
    """Add a decision to a version's tags and description, where it links to the decision's run."""
    client.set_model_version_tag(version.name, version.version, "decision.run", run_id)
    now = client.get_model_version(version.name, version.version).description or ""
    day = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    entry = f"- {day}: {text} ([decision {run_id[:8]}](#/experiments/{mlflow_runs.experiment_id()}/runs/{run_id}))"
    client.update_model_version(version.name, version.version, f"{now}\n{entry}".strip())
