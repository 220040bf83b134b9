"""The Production pointer: moved by one caller at a time, through an intent that the next call completes.

MLflow has no transaction over two aliases. A registered model's name is unique, though, so making one is a
compare-and-set that works over SQLite and HTTP alike: that is the lock. Under it, what is going to happen is written
first (the intent), then done step by step, each step harmless when repeated. Whoever comes after an interruption
finds the intent and completes it.

A lock that is not released is broken after LEASE_SECONDS, and its holder may have been paused only. Moves are therefore
numbered under the lock. The holder of a broken lock stops before its next write; an intent that it still wrote has a
number that is taken, so it is dropped; an alias or a record that it still wrote is set back to that of the last move.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_USER

from app.errors import OnTimeError
from app.model.served import Production
from app.registry import version as registered
from app.registry.version import DIGEST_TAG, PRODUCTION_TAG
from stages import tracking

STAGING, PRODUCTION, PREVIOUS = "staging", registered.PRODUCTION, "previous"
ABSENT, PRESENT = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
INTENT_TAG = "promotion.intent"
PROMOTED_TAG = "promoted.by"
TOKEN_TAG = "token"
LEASE_SECONDS = 30.0
"""Age in seconds at which a lock is considered abandoned; moving the pointer takes about a second."""


class PointerMoved(OnTimeError):
    """Production changed while the decision was made."""


class LockLost(OnTimeError):
    """Another caller has broken the lock: this process was paused for longer than LEASE_SECONDS."""


Guard = Callable[[], None]
"""Raises LockLost unless the lock is still held."""


@dataclass(frozen=True)
class Intent:
    """A move of Production: from which version to which, what is `previous` then, by which run, why, when (ms).

    `number` is its place in the order of all moves, given under the lock.
    """

    action: str
    to: str
    origin: str | None
    previous: str | None
    run_id: str
    reason: str
    at: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    number: int = 0


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
def lock(client: MlflowClient, name: str) -> Iterator[Guard]:
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

    def guard() -> None:
        if _tag(client, held, TOKEN_TAG) != token:
            raise LockLost(f"{held} was taken over after {LEASE_SECONDS:g} s.")

    try:
        yield guard
    finally:
        for lock_name in [*filter(None, graves), *([held] if _tag(client, held, TOKEN_TAG) == token else [])]:
            client.delete_registered_model(lock_name)


def _settle(client: MlflowClient, name: str, guard: Guard) -> str | None:
    """Complete the move that an interrupted call left, and return what was done; to be called under the lock."""
    text = _tag(client, name, INTENT_TAG)
    if not text:
        return None
    intent = Intent(**json.loads(text))
    why = f"version {intent.to} is gone" if by_number(client, name, intent.to) is None else ""
    if intent.number and intent.number < _next(client, name) and _last(client, name).get("run_id") != intent.run_id:
        why = "Production has moved since"
    if why:
        guard()
        client.delete_registered_model_tag(name, INTENT_TAG)
        return f"An interrupted {intent.action} is undone: {why}."
    _apply(client, name, intent, guard)
    return f"An interrupted {intent.action} is completed: version {intent.to} is Production."


def settled(client: MlflowClient, name: str) -> str | None:
    """Take the lock and complete what an interrupted call left."""
    with lock(client, name) as guard:
        return _settle(client, name, guard)


def move(client: MlflowClient, name: str, intent: Intent) -> None:
    """Make `intent.to` Production if `intent.origin` still is; raise PointerMoved otherwise."""
    try:
        with lock(client, name) as guard:
            _settle(client, name, guard)
            found = by_alias(client, name, PRODUCTION)
            now = str(found.version) if found else None
            if now != intent.origin:
                _outdated(client, name, intent, now)
            numbered = replace(intent, number=_next(client, name))
            guard()
            client.set_registered_model_tag(name, INTENT_TAG, json.dumps(asdict(numbered)))
            _apply(client, name, numbered, guard)
    except LockLost:
        with lock(client, name) as guard:
            _settle(client, name, guard)
            _set_back(client, name, intent)
            known = {one["run_id"]: one["to"] for one in moves(client, name)}
        now = list(known.values())[-1] if known else None
        if intent.run_id not in known:
            _outdated(client, name, intent, now)
        if now != intent.to:  # the successor completed this move, and then made its own
            raise PointerMoved(f"Production of {name} moved to {now} after it was version {intent.to}.") from None


def _outdated(client: MlflowClient, name: str, intent: Intent, now: str | None) -> None:
    """Mark the decision of an intent that is not carried out, and raise PointerMoved."""
    client.set_tag(intent.run_id, "decision", "outdated")
    raise PointerMoved(
        f"Production of {name} moved from {intent.origin or 'none'} to {now or 'none'} while version {intent.to} was "
        "judged, or its promotion was paused; nothing was changed. Run the command again."
    )


def _next(client: MlflowClient, name: str) -> int:
    """Return the number of the next move; former versions did not number theirs."""
    known = moves(client, name)
    return max([len(known), *(int(one.get("number", 0)) for one in known)]) + 1


def _last(client: MlflowClient, name: str) -> dict[str, str]:
    """Return the last move, empty if there was none."""
    return (moves(client, name) or [{}])[-1]


def _set_back(client: MlflowClient, name: str, late: Intent) -> None:
    """Set aliases and record back to the last move, if `late` wrote its own after it; to be called under the lock."""
    last, found = _last(client, name), by_alias(client, name, PRODUCTION)
    if "previous" not in last or last["run_id"] == late.run_id or not found or str(found.version) != late.to:
        return
    origin, previous = last["from"] or None, last["previous"] or None
    why = last["run_id"], last["why"], int(last["at"])
    _set_record(client, name, Intent(last["action"], last["to"], origin, previous, *why))
    client.set_registered_model_alias(name, PRODUCTION, last["to"])
    _set_previous(client, name, previous)


def _set_previous(client: MlflowClient, name: str, number: str | None) -> None:
    if number and by_number(client, name, number):
        client.set_registered_model_alias(name, PREVIOUS, number)
    elif by_alias(client, name, PREVIOUS) is not None:
        client.delete_registered_model_alias(name, PREVIOUS)


def _set_record(client: MlflowClient, name: str, intent: Intent) -> None:
    """Write to a version how it becomes Production, and by whom: the user of the decision's run."""
    run = client.get_run(intent.run_id)
    record = Production(
        since=intent.at / 1000,
        action=intent.action,
        by=run.data.tags.get(MLFLOW_USER, "unknown"),
        why=intent.reason,
        run_id=intent.run_id,
        experiment=run.info.experiment_id,
    )
    client.set_model_version_tag(name, intent.to, PRODUCTION_TAG, record.model_dump_json())


def _apply(client: MlflowClient, name: str, intent: Intent, guard: Guard) -> None:
    """Execute the intent; every step is idempotent."""
    guard()
    _set_record(client, name, intent)  # first, so that a service that follows the alias never reads an older record
    client.set_registered_model_alias(name, PRODUCTION, intent.to)
    guard()  # if the lock was lost before these were written, the writes have to be undone
    _set_previous(client, name, intent.previous)
    facts = {"action": intent.action, "to": intent.to, "from": intent.origin or "", "at": intent.at}
    facts |= {"number": intent.number, "previous": intent.previous or ""}
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
    return sorted(found, key=lambda tags: (int(tags.get("number", 0)), int(tags["at"])))


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
