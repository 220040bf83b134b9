"""`on-time model retrain`: decide from the evidence whether a new model is needed, and start the retraining."""

import logging
import math
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from io import StringIO
from pathlib import Path
from typing import Literal

import httpx
import mlflow
import numpy as np
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from ruamel.yaml import YAML

from app.errors import OnTimeError
from app.settings import Inherited
from ops.monitoring.drift.compare import Alarm, AlarmKind
from ops.monitoring.drift.journal import outcomes_since
from ops.monitoring.drift.monitor import DriftSettings, Monitor
from ops.monitoring.drift.report import EXPERIMENT
from stages import interface, params
from stages.base.errors import ParamsInvalid
from stages.base.paths import finite, replace_text
from stages.problem_kit.params import PARAMS_FILE, MonitorParams
from stages.problem_kit.rows import day_of
from stages.tables import fetch
from stages.tables.read import load_tables

DAY_SECONDS = 86400
TEST_DAYS = 28
"""Days at the end of the data on which a retrained model is evaluated and compared with the champion."""
EVENT = "retrain"
ACTION_TAG = "retrain.action"

NO_CAUSE = {AlarmKind.FEATURE_DRIFT, AlarmKind.INPUT_MISSING}
"""Alarms that a new model would not repair."""

log = logging.getLogger("ops.training.retraining")
Action = Literal["skip", "retrain", "block"]


class RetrainingFailed(OnTimeError):
    """The retraining could not be started."""


@dataclass(frozen=True)
class RetrainEvidence:
    """The evidence for a retraining decision; unknown numbers are NaN."""

    version: str
    rows: int
    """Predictions in the last window."""
    alarms: tuple[Alarm, ...]
    """Of the last window; none below `monitor.drift.min_rows` predictions."""
    new_outcomes: int
    """Outcomes received since the model was registered."""
    age_days: float
    days_since_retraining: float
    """Infinite when there was none."""


@dataclass(frozen=True)
class Verdict:
    """The decision and its reasons."""

    action: Action
    reasons: tuple[str, ...]


def decide_retraining(evidence: RetrainEvidence, policy: MonitorParams) -> Verdict:
    """Return `skip` without a cause, `block` where a new model would not help, and `retrain` otherwise."""
    limits = policy.retrain
    causes = [str(alarm) for alarm in evidence.alarms if alarm.kind not in NO_CAUSE]
    if not evidence.age_days <= limits.max_age_days:
        causes.append(f"the model is {evidence.age_days:.0f} days old, the limit is {limits.max_age_days}")
    if not causes:
        few = f"{evidence.rows or 'no'} predictions yet, {policy.drift.min_rows} are needed: nothing was compared"
        nothing = "no alarm" if evidence.rows >= policy.drift.min_rows else few
        return Verdict("skip", tuple(map(str, evidence.alarms)) or (nothing,))
    obstacles = []
    missing = sum(alarm.kind is AlarmKind.INPUT_MISSING for alarm in evidence.alarms)
    if missing > limits.max_missing_features:
        obstacles.append(f"{missing} features are missing too often: repair their source first")
    if evidence.new_outcomes < limits.min_new_outcomes:
        obstacles.append(f"{evidence.new_outcomes} new outcomes, {limits.min_new_outcomes} are needed")
    if not evidence.days_since_retraining >= limits.cooldown_days:
        obstacles.append(f"the last retraining was {evidence.days_since_retraining:.1f} days ago")
    return Verdict("block", (*obstacles, *causes)) if obstacles else Verdict("retrain", tuple(causes))


class RetrainSettings(Inherited):
    """Settings of the retraining, each from the variable ONTIME_RETRAIN_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="ONTIME_RETRAIN_")

    repository: str = Field(default="", pattern="^([A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+)?$")
    """owner/name on GitHub whose workflow retrains; without one, this machine does."""

    token_file: Path = Path("secrets/github_token")
    """File with a token that may send a repository_dispatch."""

    api: str = "https://api.github.com"
    """GitHub's API."""


def collect_evidence() -> RetrainEvidence:
    """Return the evidence: the last window of the journal, the registry, and the retrainings before."""
    monitor = Monitor(DriftSettings.read())
    number = monitor.look_up()
    if number is None:
        raise RetrainingFailed("no version is Production: promote one by `make promote`.")
    version, rows, alarms = monitor.check(number)
    registered = version.creation_timestamp / 1000
    return RetrainEvidence(
        version=number,
        rows=rows,
        alarms=tuple(alarms),
        new_outcomes=outcomes_since(monitor.engine, registered),
        age_days=(time.time() - registered) / DAY_SECONDS,
        days_since_retraining=_days_since_retraining(),
    )


def _days_since_retraining() -> float:
    """Return the days since a decision to retrain, or infinity."""
    runs = mlflow.search_runs(
        experiment_names=[EXPERIMENT],
        filter_string=f"tags.`{ACTION_TAG}` = 'retrain'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
        output_format="list",
    )
    return (time.time() - runs[0].info.start_time / 1000) / DAY_SECONDS if runs else math.inf


def record_decision(evidence: RetrainEvidence, verdict: Verdict) -> str:
    """Log a decision with its evidence to MLflow, and return the run's id."""
    mlflow.set_experiment(EXPERIMENT)
    tags = {ACTION_TAG: verdict.action, "model_version": evidence.version, "reasons": "; ".join(verdict.reasons)[:4000]}
    with mlflow.start_run(run_name=f"retraining: {verdict.action}", tags=tags) as active:
        mlflow.log_dict({"evidence": finite(asdict(evidence)), "verdict": asdict(verdict)}, "decision.json")
    return str(active.info.run_id)


def dispatch(settings: RetrainSettings, reasons: tuple[str, ...]) -> None:
    """Start the retraining workflow on GitHub; raise RetrainingFailed when GitHub rejects the request."""
    body = {"event_type": EVENT, "client_payload": {"reason": "; ".join(reasons)}}
    try:
        token = settings.token_file.read_text(encoding="utf-8").strip()
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
        url = f"{settings.api}/repos/{settings.repository}/dispatches"
        httpx.post(url, json=body, headers=headers, timeout=20).raise_for_status()
    except (OSError, httpx.HTTPError) as err:
        raise RetrainingFailed(
            f"the workflow of {settings.repository} was not started: {err}. ONTIME_RETRAIN_TOKEN_FILE names a file "
            "with a token that may write the repository's contents; `on-time model retrain --now` retrains here."
        ) from err


def move_window(until: date, path: Path = PARAMS_FILE) -> None:
    """Write a training window into params.yaml that ends `TEST_DAYS` before `until`, and the test window after it.

    Relative windows follow the data by themselves: the file stays as it is. It also does where the data have no such
    windows, or the training window lacks a fold of `train.fold_months`, which raises RetrainingFailed.
    """
    p = params.load(path)
    if p.featurize.relative:
        return
    last_train = until - timedelta(days=TEST_DAYS)
    windows = {"train": (p.train_period[0], last_train), "test": (last_train + timedelta(days=1), until)}
    moved = p.model_copy(update={"featurize": p.featurize.model_copy(update=windows)})
    trained = [day for day in p.problem.days() if p.train_period[0] <= day <= last_train]
    try:
        params.check_windows(moved, path)
        moved.train.folds(np.unique(np.array(trained, dtype="datetime64[M]")).astype(int).tolist())
    except ParamsInvalid as err:
        raise RetrainingFailed(f"the windows cannot end on {until}: {err} Choose another day by --until.") from err
    yaml, written = YAML(), StringIO()
    yaml.preserve_quotes = True
    content = yaml.load(path)
    content["featurize"]["train"][1] = f"{last_train}"
    content["featurize"]["test"][:] = [f"{last_train + timedelta(days=1)}", f"{until}"]
    yaml.dump(content, written)
    replace_text(path, written.getvalue())


def retrain_here(until: date) -> None:
    """Move the window and run the pipeline; the changed files are left uncommitted, the model becomes Staging."""
    move_window(until)
    done = subprocess.run([sys.executable, "-m", "ops.cli", "model", "repro"], check=False)  # under its lock
    if done.returncode:
        raise RetrainingFailed("the pipeline failed; its output is above, `git diff params.yaml` shows the new window.")
    print(
        "Next: `make gate` checks the new model, `make promote` compares it with Production.\n"
        "Commit params.yaml, dvc.lock and reports."
    )


def retrain(until: date | None, now: bool) -> None:
    """Decide and act, or retrain `now` without a decision, on the data until a day (by default, the newest one)."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    p = params.load()
    if until and p.featurize.relative:
        raise RetrainingFailed("featurize.train_days in params.yaml sets the windows: leave out --until.")
    until = until or day_of(interface.labelled_rows(load_tables(fetch.DATA_DIR), p.problem).day.max())  # the newest one
    if now:
        retrain_here(until)
        return
    evidence = collect_evidence()
    verdict = decide_retraining(evidence, p.monitor)
    run_id = record_decision(evidence, verdict)
    print(f"{verdict.action}: {'; '.join(verdict.reasons)} (MLflow run {run_id})", flush=True)
    if verdict.action != "retrain":
        return
    settings = RetrainSettings.read()
    if settings.repository:
        dispatch(settings, verdict.reasons)
    else:
        retrain_here(until)
