"""The Production pointer: moved by one caller at a time, through an intent that the next call completes.

MLflow has no transaction over two aliases. A registered model's name is unique, though, so making one is a
compare-and-set that works over SQLite and HTTP alike: that is the lock. Under it, what is going to happen is written
first (the intent), then done step by step, each step harmless when repeated. Whoever comes after an interruption
finds the intent and completes it.
"""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from app.errors import OnTimeError
from app.registry.version import DIGEST_TAG
from stages import tracking

STAGING, PRODUCTION, PREVIOUS = "staging", "production", "previous"
ABSENT, PRESENT = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
INTENT_TAG = "promotion.intent"
PROMOTED_TAG = "promoted.by"
TOKEN_TAG = "token"
LEASE_SECONDS = 30.0
"""Age in seconds at which a lock is considered abandoned; moving the pointer takes about a second."""


class PointerMoved(OnTimeError):
    """Production changed while the decision was made."""


@dataclass(frozen=True)
class Intent:
    """A move of Production: from which version to which, what is `previous` then, by which run, why, when (ms)."""

    action: str
    to: str
    origin: str | None
    previous: str | None
    run_id: str
    reason: str
    at: int = field(default_factory=lambda: time.time_ns() // 1_000_000)


@contextmanager
def suppressed(*codes: str) -> Iterator[None]:
    """Suppress MLflow's errors with these codes; the block ends at the first one."""
    try:
        yield
    except MlflowException as err:
        if err.error_code not in codes:
            raise


def by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """Return the version with an alias, if there is one."""
    with suppressed(ABSENT, "INVALID_PARAMETER_VALUE"):
        return client.get_model_version_by_alias(name, alias)
    return None


def by_number(client: MlflowClient, name: str, number: str) -> ModelVersion | None:
    """Return the version with this number, if there is one."""
    with suppressed(ABSENT, "INVALID_PARAMETER_VALUE"):
        return client.get_model_version(name, number)
    return None


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Return the number of the version that each alias names, if that version exists."""
    found = {alias: by_alias(client, name, alias) for alias in (STAGING, PRODUCTION, PREVIOUS)}
    return {alias: str(version.version) for alias, version in found.items() if version}


def _tag(client: MlflowClient, name: str, key: str) -> str | None:
    """Return a tag of a registered model, empty if it has none; None if the model does not exist."""
    with suppressed(ABSENT):
        return str(client.get_registered_model(name).tags.get(key, ""))
    return None


def _acquire(client: MlflowClient, held: str, token: str) -> bool:
    with suppressed(PRESENT):
        client.create_registered_model(held, tags={TOKEN_TAG: token}, description="Held while Production moves.")
        return True
    return _tag(client, held, TOKEN_TAG) == token  # true if an earlier attempt succeeded and its response was lost


def _break(client: MlflowClient, held: str, token: str) -> str | None:
    """Remove an abandoned lock by renaming it; the new name is unique, so only one of the waiting callers succeeds."""
    grave = f"{held}-{token}"
    with suppressed(PRESENT, ABSENT):
        client.rename_registered_model(held, grave)
        return grave
    return None


@contextmanager
def lock(client: MlflowClient, name: str) -> Iterator[None]:
    """Hold the pointer of a model until the block ends; wait while another caller holds it."""
    held, token = f"{name}-pointer-lock", uuid.uuid4().hex
    graves: list[str | None] = []
    watched, since = None, time.monotonic()
    while not _acquire(client, held, token):
        holder = _tag(client, held, TOKEN_TAG)
        if holder != watched:
            watched, since = holder, time.monotonic()
        elif holder is not None and time.monotonic() - since > LEASE_SECONDS:
            graves.append(_break(client, held, holder))
        time.sleep(0.05)
    try:
        yield
    finally:
        for lock_name in [*filter(None, graves), *([held] if _tag(client, held, TOKEN_TAG) == token else [])]:
            client.delete_registered_model(lock_name)


def _settle(client: MlflowClient, name: str) -> str | None:
    """Complete the move that an interrupted call left, and return what was done; to be called under the lock."""
    text = _tag(client, name, INTENT_TAG)
    if not text:
        return None
    intent = Intent(**json.loads(text))
    if by_number(client, name, intent.to) is None:
        client.delete_registered_model_tag(name, INTENT_TAG)
        return f"An interrupted {intent.action} is undone: version {intent.to} is gone."
    _apply(client, name, intent)
    return f"An interrupted {intent.action} is completed: version {intent.to} is Production."


def settled(client: MlflowClient, name: str) -> str | None:
    """Take the lock and complete what an interrupted call left."""
    with lock(client, name):
        return _settle(client, name)


def move(client: MlflowClient, name: str, intent: Intent) -> None:
    """Make `intent.to` Production if `intent.origin` still is; raise PointerMoved otherwise."""
    with lock(client, name):
        _settle(client, name)
        found = by_alias(client, name, PRODUCTION)
        now = str(found.version) if found else None
        if now != intent.origin:
            client.set_tag(intent.run_id, "decision", "outdated")
            raise PointerMoved(
                f"Production of {name} moved from {intent.origin or 'none'} to {now or 'none'} while version "
                f"{intent.to} was judged; nothing was changed. Run the command again."
            )
        client.set_registered_model_tag(name, INTENT_TAG, json.dumps(asdict(intent)))
        _apply(client, name, intent)


def _apply(client: MlflowClient, name: str, intent: Intent) -> None:
    """Execute the intent; every step is idempotent."""
    if intent.previous is not None and by_number(client, name, intent.previous):
        client.set_registered_model_alias(name, PREVIOUS, intent.previous)
    elif by_alias(client, name, PREVIOUS) is not None:
        client.delete_registered_model_alias(name, PREVIOUS)
    client.set_registered_model_alias(name, PRODUCTION, intent.to)
    facts = {"action": intent.action, "to": intent.to, "from": intent.origin or "", "at": intent.at}
    digest = client.get_model_version(name, intent.to).tags.get(DIGEST_TAG, "")
    facts |= {"why": intent.reason, "digest": digest, "model": name}
    for key, value in facts.items():  # `model` last: it marks the record as complete
        client.set_tag(intent.run_id, f"moved.{key}", str(value))
    if intent.action == "promote":
        client.set_model_version_tag(name, intent.to, PROMOTED_TAG, intent.run_id)
    client.delete_registered_model_tag(name, INTENT_TAG)


def moves(client: MlflowClient, name: str) -> list[dict[str, str]]:
    """Return the moves of Production, oldest first: action, from, to, at (ms), why and the decision's run id."""
    runs = tracking.find_runs(client, {tracking.STAGE_TAG: "decision", "moved.model": name})
    found = []
    for run in runs:
        tags = {k.removeprefix("moved."): v for k, v in run.data.tags.items() if k.startswith("moved.")}
        found.append(tags | {"run_id": run.info.run_id})
    return sorted(found, key=lambda tags: int(tags["at"]))


def before(client: MlflowClient, name: str, version: str) -> str | None:
    """Return what was Production before a version was last promoted, if the registry still has it."""
    promotions = [m for m in moves(client, name) if m["to"] == version and m["action"] == "promote"]
    number = promotions[-1]["from"] if promotions and not changed(client, name, promotions[-1]) else ""
    return number if number and by_number(client, name, number) else None


def changed(client: MlflowClient, name: str, move: dict[str, str]) -> str:
    """Return what has happened to the version of a move since: deleted, or its number names another bundle."""
    version = by_number(client, name, move["to"])
    if version is None:
        return "deleted"
    digest = version.tags.get(DIGEST_TAG, "")
    return "" if move.get("digest", digest) == digest else "now another bundle"


def link(run_id: str) -> str:
    """Return the URL of a run in MLflow's UI."""
    uri, experiment = tracking.tracking_uri(), tracking.experiment_id()
    base = uri.rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
    return f"{base}/#/experiments/{experiment}/runs/{run_id}"


def ui_hint() -> str:
    """Return a hint on starting the UI, if MLflow is a local file."""
    return "" if tracking.tracking_uri().startswith("http") else " (`make ui` starts the UI)"


def describe(client: MlflowClient, version: ModelVersion, run_id: str, text: str) -> None:
    """Add a decision to a version's tags and description, where it links to the decision's run."""
    client.set_model_version_tag(version.name, version.version, "decision.run", run_id)
    now = client.get_model_version(version.name, version.version).description or ""
    day = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    entry = f"- {day}: {text} ([decision {run_id[:8]}](#/experiments/{tracking.experiment_id()}/runs/{run_id}))"
    client.update_model_version(version.name, version.version, f"{now}\n{entry}".strip())
