"""The registry's commands: promote, rollback, require, export.

A decision is recorded before the alias moves, and a refusal is recorded too: whoever reads the history sees why a
version is Production, and which others were refused. A crash before the move leaves a decision that has moved nothing;
after the move, `aliases.complete_record` adds what is missing at the next command.
"""

# pylint: disable=import-outside-toplevel # the evidence takes pandas, SciPy and scikit-learn, a second to import

from __future__ import annotations

import math
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import click
import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from app.addresses import without_password
from app.errors import BundleInvalid, ModelUnavailable, OnTimeError, Refused
from app.interface import NAME
from app.model import bundles
from app.model.evaluation import EVALUATION_FILE
from app.registry import download, registered
from app.registry.cache import Cache
from app.registry.registered import VERSION_FILE
from app.settings import Settings
from ops.ci.github import output
from ops.gate.policy import Evidence, decide_promotion, markdown, on_rows, verdict
from ops.registry import aliases
from ops.registry.aliases import PRODUCTION, PROMOTED_TAG, STAGING, Move, by_alias
from stages import params
from stages.base.paths import finite, write_json
from stages.evaluation.floors import Bound, Decision
from stages.params import Params
from stages.tracking import mlflow_runs

LOCKED_SECONDS = 40
"""Time after which no locked call is repeated; MLflow waits 20 s in each."""

Result = TypeVar("Result")


EXPORTED = frozenset({bundles.MODEL_FILE, bundles.MANIFEST_FILE, VERSION_FILE, EVALUATION_FILE})
"""The files of an export."""


class ExportRefused(OnTimeError):
    """The folder of an export has files that are not of an export."""


class PromotionRefused(Refused):
    """The gate did not accept the model."""


def require(client: MlflowClient, _: Params) -> ModelVersion:
    """Return the Production version; raise ModelUnavailable with the command that creates one."""
    staged = by_alias(client, NAME, STAGING)
    promote_it = f"`make promote` makes version {staged.version} Production" if staged else ""
    return find_version(client, NAME, None, PRODUCTION, promote_it or "`make repro` makes a model")


def find_version(client: MlflowClient, name: str, number: str | None, alias: str, command: str) -> ModelVersion:
    """Return the version with this number or alias; raise ModelUnavailable with the command that creates one."""
    version = aliases.by_number(client, name, number) if number else by_alias(client, name, alias)
    if version is None:
        wanted = f"version {number}" if number else f"version with the alias {alias}"
        raise ModelUnavailable(f"{name} has no {wanted} in {without_password(mlflow_runs.tracking_uri())}; {command}.")
    return version


def record_decision(
    action: str,
    subject: ModelVersion,
    champion: ModelVersion | None,
    decision: Decision,
    p: Params,
    evidence: Evidence | None = None,
    reason: str = "",
) -> str:
    """Log a decision, accepted or refused, as a run with all its evidence; return the run's id."""
    from ops.gate.evidence import ROWS_TAG

    tags = {
        "action": action,
        "decision": verdict(decision),
        "challenger": str(subject.version),
        "champion": str(champion.version) if champion else "",
        "reasons": "; ".join(filter(None, [reason, *decision.reasons]))[:4000],
    }
    rows = evidence.rows if evidence else {}
    if rows:
        tags |= {"rows": on_rows(rows), ROWS_TAG: str(rows["sha256"])}
    with (
        mlflow_runs.stage_run("decision", p.gate.model_dump(mode="json")) as log,
        tempfile.TemporaryDirectory() as folder,
    ):
        mlflow.set_tags(tags)
        numbers: dict[str, float] = {}
        for check in decision.checks:
            name = re.sub(r"[^\w./ -]", "", check.label.replace("=", " "))[:200].strip("/ ")
            numbers |= {name: check.value, f"{name}.now": check.now, f"{name}.base": check.base}
        mlflow.log_metrics({name: value for name, value in numbers.items() if math.isfinite(value)})
        write_json(Path(folder) / "decision.json", tags | {"checks": finite([vars(c) for c in decision.checks])})
        (Path(folder) / "decision.md").write_text(markdown(decision) + "\n", encoding="utf-8")
        log.artifact(Path(folder))
        mlflow.set_tag("mlflow.note.content", markdown(decision)[:4900])
    return log.run_id


def promote(
    client: MlflowClient,
    p: Params,
    number: str | None,
    allow_equal: bool = False,
    if_none: bool = False,
    without_champion: bool = False,
) -> str:
    """Make Staging, or the version `number`, the Production version if the gate accepts it; return what was done.

    With `if_none`, nothing is done when a version is Production; with `without_champion`, the floors alone decide if
    that version cannot be compared with.
    """
    from ops.gate.evidence import check_outputs, collect_evidence

    champion = by_alias(client, NAME, PRODUCTION)
    if if_none and champion:
        return ""
    challenger = find_version(client, NAME, number, STAGING, "`make repro` makes one")
    aliases.complete_record(client, NAME)
    if champion and champion.version == challenger.version:
        return f"Version {champion.version} of {NAME} is Production already."
    lost = _lost(champion) if champion and without_champion else ""
    check_outputs("featurize")
    evidence = collect_evidence(client, challenger, None if lost else champion, p)
    decision = decide_promotion(evidence, p.gate, allow_equal)
    run_id = record_decision("promote", challenger, champion, decision, p, evidence, lost)
    against = _against(champion, lost, evidence)
    _describe(client, (challenger, champion), run_id, f"version {challenger.version} {verdict(decision)} {against}")
    where = f"The evidence: {aliases.link(run_id)}{aliases.ui_hint()}"
    if not decision.accepted:
        reasons = "; ".join(decision.reasons)
        raise PromotionRefused(f"version {challenger.version} of {NAME} is refused {against}: {reasons}. {where}")
    pairs = [f"{name} {pair.champion:.4f} → {pair.challenger:.4f}" for name, pair in evidence.metrics.items()]
    why = f"accepted {against}"
    if pairs:
        why += ": " + ", ".join(pairs)
    origin = str(champion.version) if champion else None
    aliases.move(client, NAME, Move("promote", str(challenger.version), origin, run_id, why))
    _cache(challenger)
    output(replaced=origin or "")
    return f"Version {challenger.version} of {NAME} is Production, {why}. {where}\n`make serve` serves it."


def _describe(client: MlflowClient, versions: Iterable[ModelVersion | None], run_id: str, text: str) -> None:
    for version in versions:
        if version:
            aliases.describe(client, version, run_id, text)


def _against(champion: ModelVersion | None, lost: str, evidence: Evidence) -> str:
    """Return the champion or the floors that decided, and the test rows, as text."""
    if lost:
        against = f"by the floors, {lost}"
    elif champion:
        against = f"against version {champion.version}"
    else:
        against = "by the floors, with no champion"
    return f"{against} on {on_rows(evidence.rows)}" if evidence.rows else against


def _lost(champion: ModelVersion) -> str:
    """Return why the champion cannot be compared with; raise UsageError if it can."""
    from ops.gate.evidence import candidate, last_training_day

    try:
        with candidate(champion) as loaded:
            if last_training_day(loaded.bundle.manifest):
                raise click.UsageError(f"version {champion.version} can be loaded: promote without --without-champion.")
            return "without the champion (its last day of training is unknown)"
    except BundleInvalid as err:
        return f"without the champion ({str(err).partition('. ')[0]})"


def rollback(client: MlflowClient, p: Params, number: str | None, reason: str) -> str:
    """Make the previous version, or the version `number`, Production again, after loading and verifying it."""
    from ops.gate.evidence import candidate

    if not reason.strip():
        raise click.UsageError('a rollback needs a reason: make rollback REASON="what is wrong with Production".')
    champion = require(client, p)
    aliases.complete_record(client, NAME)
    number = number or aliases.previous(client, NAME)
    if number is None:
        raise ModelUnavailable(
            f"no version was Production before {champion.version}: `make history` shows which were; roll back with "
            "--version N."
        )
    target = find_version(client, NAME, number, "", "`make history` shows which were; roll back with --version N")
    if champion.version == target.version:
        return f"Version {target.version} of {NAME} is Production already."
    checks = [Bound.at_least("promoted before", int(PROMOTED_TAG in target.tags), 1)]
    try:
        with candidate(target):
            checks.append(Bound.at_least("bundle that the service can load", 1, 1))
    except BundleInvalid as err:
        checks.append(Bound.at_least("bundle that the service can load", 0, 1, message=str(err)))
    decision = Decision(tuple(checks))
    run_id = record_decision("rollback", target, champion, decision, p, reason=reason)
    text = f"rollback from version {champion.version} to {target.version} {verdict(decision)}: {reason}"
    _describe(client, (target, champion), run_id, text)
    if not decision.accepted:
        reasons = "; ".join(decision.reasons)
        stays = f"version {champion.version} of {NAME} stays Production"
        raise PromotionRefused(f"{stays}: version {target.version}: {reasons}.")
    aliases.move(client, NAME, Move("rollback", str(target.version), str(champion.version), run_id, reason))
    _cache(target)
    done = f"Version {target.version} of {NAME} is Production again, after {champion.version}: {reason}."
    return f"{done} {aliases.link(run_id)}{aliases.ui_hint()}"


def _cache(version: ModelVersion) -> None:
    """Cache the new Production version for the service of this checkout; if that fails, its start downloads it."""
    with suppress(OnTimeError), tempfile.TemporaryDirectory() as folder:
        known = download.export(version, PRODUCTION, mlflow_runs.tracking_uri(), Path(folder))
        Cache(Settings.read()).keep(known, Path(folder))


def export(client: MlflowClient, p: Params, folder: Path, number: str | None) -> str:
    """Write Production, or the version `number`, as a folder that the service can load; return what was done.

    The folder is complete or not there at all. Only an earlier export is replaced; raises ExportRefused otherwise.
    """
    _refuse_other_files(folder)
    version = find_version(client, NAME, number, "", "`make history` shows them") if number else require(client, p)
    alias = PRODUCTION if aliases.read_aliases(client, NAME).get(PRODUCTION) == str(version.version) else ""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        copy = Path(scratch) / folder.name
        download.export(version, alias, mlflow_runs.tracking_uri(), copy)
        registered.load(copy, "baked")
        _refuse_other_files(folder)  # the download took seconds
        for file in folder.iterdir() if folder.exists() else ():
            file.unlink()
        copy.rename(folder)  # an empty folder is replaced, one with a new file is not
    return f"Version {version.version} of {NAME} is in {folder}; ONTIME_BAKED_MODEL={folder} serves it."


def _refuse_other_files(folder: Path) -> None:
    """Raise ExportRefused unless the folder is absent, empty, or holds an earlier export and nothing else."""
    try:
        others = sorted(path.name for path in folder.iterdir() if path.name not in EXPORTED or not path.is_file())
    except FileNotFoundError:
        return
    except OSError as err:
        raise ExportRefused(f"{folder} cannot be replaced by an export: {err.strerror}. Name a new folder.") from err
    if others or folder.is_symlink() or folder.resolve() == Path.cwd():
        what = f"has other files than an export ({others[0]})" if others else "is a link or the current folder"
        raise ExportRefused(f"{folder} {what}. Nothing was removed; name a new or empty folder.")


def patiently(action: Callable[[MlflowClient, Params], Result]) -> Result:
    """Run an action on the registry; retry it while another process has locked SQLite."""
    p, client = params.load(), mlflow_runs.connect()
    until = time.monotonic() + LOCKED_SECONDS
    while True:
        try:
            return action(client, p)
        except MlflowException as err:
            if err.error_code != "TEMPORARILY_UNAVAILABLE" or time.monotonic() > until:
                raise
            time.sleep(random.uniform(0.2, 1))  # random, so that two processes do not retry together
