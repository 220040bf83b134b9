"""`on-time model year`: the closed loop in fast motion, month by month, in a clone of its own.

The first months are the first data. The rows of each later month are added, and predicted by three models: the first
one, the loop's Production, and one that is trained on all rows before the month. The monitor then compares the month's
weeks, and its decisions run the commands of the daily work: pipeline, gate, promotion.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from app.errors import OnTimeError
from app.model import bundles
from app.problem_kit.features import Floats, day_number
from ops.data import growth
from ops.gate.evidence import TestRows
from ops.monitoring.drift.compare import Alarm, alarms, compare_window
from ops.monitoring.drift.reference import SCORE, Reference, words
from ops.studies import year_report
from ops.studies.drift import weeks
from ops.studies.year_report import MODELS, SCORES, Month, measured
from ops.training.retraining import TEST_DAYS, RetrainEvidence, decide_retraining
from stages import interface, params
from stages.base import git, progress
from stages.base.paths import BUNDLE_DIR, VALIDATION_FILE, finite, sha256, write_json
from stages.evaluation import metrics, scores
from stages.features import compute
from stages.features.feature_files import DAY, TARGET, matrix
from stages.params import Params
from stages.problem_kit.params import PARAMS_FILE
from stages.problem_kit.rows import LabelledRows, months_of
from stages.problem_kit.rules import Tables
from stages.tables import fetch
from stages.tables.read import load_tables
from stages.tables.repairs import repair
from stages.training.boosting import Source, fit

CLONE, INBOX, BEGUN, LEDGER = "clone", "inbox", "begun.json", "ledger.json"
FIRST, PRODUCTION = "first", "production"
IDENTITY = ("-c", "user.name=year", "-c", "user.email=year@localhost", "-c", "commit.gpgSign=false")
ALL_DAYS = 100_000
OWN = ("MLFLOW_TRACKING_", "MLFLOW_REGISTRY_", "ONTIME_")
"""Variables of the caller that would lead the clone to the caller's own services."""


class YearFailed(OnTimeError):
    """A step failed without which the year cannot continue."""


def run_module(*arguments: str, allowed: tuple[int, ...] = (0,)) -> tuple[int, str]:
    """Run a module in the clone; return exit code and error text; raise YearFailed for any code but `allowed`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run([sys.executable, "-m", *arguments], env=env, capture_output=True, text=True, check=False)
    error = " ".join(done.stderr.rpartition("error: ")[2].split())
    if done.returncode not in allowed:
        raise YearFailed(
            f"`{' '.join(arguments[:4])}` failed in {Path.cwd()}: {error[-400:]} The same command resumes."
        )
    return done.returncode, error


def commit(message: str) -> None:
    """Commit all that has changed in the clone, if anything has."""
    git.git("add", "--all")
    git.git(*IDENTITY, "commit", "--quiet", "--allow-empty", "--message", message)


def prepare(root: Path, folder: Path, first: int) -> None:
    """Make the clone, with the first months as its data and their model as Production, and the inbox of the others."""
    git.git("clone", "--quiet", str(root), str(folder / CLONE))
    os.chdir(folder / CLONE)
    p, content = params.load(), yaml.safe_load(PARAMS_FILE.read_text(encoding="utf-8"))
    if p.data.added:
        raise YearFailed("the year begins with the first data: use a checkout without additions.")
    fetch.DATA_DIR.mkdir()
    tables = load_tables(root / fetch.DATA_DIR)
    months = {name: months_of(growth.day_numbers(name, frame, p.problem)) for name, frame in tables.items()}
    known = np.unique(np.concatenate(list(months.values())))
    last = known[min(first, len(known)) - 1]
    for name, month in months.items():
        raw = pd.read_csv(root / fetch.DATA_DIR / f"{name}.csv", dtype=str, keep_default_na=False)
        kept = raw[month <= last] if month.size else raw
        kept.to_csv(fetch.DATA_DIR / f"{name}.csv", index=False)
        content["data"]["tables"][name] = sha256(fetch.DATA_DIR / f"{name}.csv")
        content["validate"]["rows"][name] = [len(kept), len(kept)]
        for later in known[known > last] if month.size else ():
            place = folder / INBOX / str(np.datetime64(int(later), "M"))
            place.mkdir(parents=True, exist_ok=True)
            raw[month == later].to_csv(place / f"{name}-{place.name}.csv.gz", index=False)
    content["problem"]["last_date"] = str(np.datetime64(int(last) + 1, "M").astype("datetime64[D]") - 1)
    PARAMS_FILE.write_text(yaml.safe_dump(loosened(content), sort_keys=False), encoding="utf-8")
    run_module("dvc", "add", "--quiet", str(fetch.DATA_DIR))
    retrain()
    commit("The first months")
    run_module("ops.cli", "model", "promote")
    shutil.copytree(BUNDLE_DIR, folder / PRODUCTION)
    shutil.copytree(BUNDLE_DIR, folder / FIRST)


def loosened(content: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters with windows that follow the data, and without the bounds that hold for a year only.

    The floors are about the committed test months, the shares of missing values about the whole first year: a single
    month may be beyond both. What compares two models stays as it is.
    """
    windows = {"train_days": ALL_DAYS, "test_days": TEST_DAYS}
    content["featurize"] = {k: v for k, v in content["featurize"].items() if k not in ("train", "test")} | windows
    content["train"]["fold_months"] = 2
    shares = content["validate"]["missing_share"]
    content["validate"]["missing_share"] = {name: min(1.0, 3 * share) for name, share in shares.items()}
    gate = content["gate"]
    gate |= {"floors": {"roc_auc": 0.6}, "leak_roc_auc": 1.0, "brier_skill": 0.0, "log_loss_gain": 0.0}
    gate["pull_request"]["slice_floors"] = {"roc_auc": 0.5}
    return dict(content)


def retrain() -> None:
    """Run the pipeline on the newest windows; remove slices that the test rows lack from the watched ones."""
    run_module("dvc", "repro", "featurize")
    content, rows = yaml.safe_load(PARAMS_FILE.read_text(encoding="utf-8")), TestRows.load()
    slices, target = scores.slices(rows.frame, rows.lookups), rows.frame[TARGET]
    enough = [
        name
        for name in content["gate"]["slices"]
        if name in slices and slices[name].sum() >= metrics.MIN_ROWS and 0 < target[slices[name]].mean() < 1
    ]
    if enough != content["gate"]["slices"]:
        content["gate"]["slices"] = enough
        PARAMS_FILE.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        commit("Watch the slices that the test rows have")
    run_module("dvc", "repro")


def repaired() -> Tables:
    """Return the tables in data/ with the repairs of the last validation; build/tables lacks later additions."""
    items = json.loads(VALIDATION_FILE.read_text(encoding="utf-8"))["repairs"]
    return {
        table: repair(frame, [item for item in items if item["table"] == table])[0]
        for table, frame in load_tables(fetch.DATA_DIR).items()
    }


def predict(folder: Path, rows: LabelledRows, tables: Tables, p: Params) -> tuple[pd.DataFrame, dict[str, list[str]]]:
    """Return features, target, day and score of rows by a kept bundle, and its vocabularies."""
    known = bundles.load(folder / bundles.MODEL_FILE, folder / bundles.MANIFEST_FILE)
    frame = compute.compute_features(rows, tables, known.lookups, p.problem)
    return frame.assign(**{SCORE: bundles.predict(known.booster, matrix(frame))}), known.lookups.vocabularies


def oracle(rows: LabelledRows, now: LabelledRows, tables: Tables, p: Params) -> Floats:
    """Return the scores of a model that is trained on all rows before the month."""
    before = rows.where(rows.day < now.day.min())
    lookups = interface.lookups(tables, [before.frame], p.problem)
    learned, frame = (compute.compute_features(part, tables, lookups, p.problem) for part in (before, now))
    booster = fit(Source.frame(learned), p.train, label="on all rows before the month")
    return bundles.predict(booster, matrix(frame))


def weekly_alarms(folder: Path, window: pd.DataFrame, vocabularies: dict[str, list[str]], p: Params) -> list[Alarm]:
    """Return the alarms of the month's whole weeks, each kind and feature once, at its largest."""
    sample = words(pd.read_parquet(folder / bundles.REFERENCE_FILE), vocabularies)
    reference = Reference("of the year", sample, p.monitor.drift)
    compared = [week for _, week in weeks(words(window, vocabularies)) if len(week) >= p.monitor.drift.min_rows]
    found = [alarm for week in compared for alarm in alarms(reference, compare_window(reference, week, week))]
    return list({(one.kind, one.feature): one for one in sorted(found, key=lambda one: abs(one.value))}.values())


def evidence(folder: Path, found: list[Alarm], rows: int, last: int, ledger: list[Month]) -> RetrainEvidence:
    """Return the evidence at the end of a month, whose last day is given since 1970-01-01."""
    manifest = json.loads((folder / PRODUCTION / bundles.MANIFEST_FILE).read_text(encoding="utf-8"))
    reach = day_number(date.fromisoformat(manifest["rows"]["test"]["last"]))
    retrained = [one["last"] for one in ledger if one.get("action") == "retrain"]
    outcomes = rows + sum(one["rows"] for one in ledger if one.get("last", reach) > reach)
    ago = float(last - retrained[-1]) if retrained else math.inf
    return RetrainEvidence("Production", rows, tuple(found), outcomes, float(last - reach), ago)


def happen(place: Path, folder: Path, ledger: list[Month]) -> Month:
    """Add a month's rows, predict them by the three models, and let the monitor decide; return the record."""
    code, error = run_module("ops.cli", "data", "add", *map(str, sorted(place.iterdir())), allowed=(0, 1))
    if code:
        return {"month": place.name, "action": "none", "reasons": [error], "outcome": "data refused"}
    commit(f"The rows of {place.name}")
    p = params.load()
    tables = repaired()
    rows = interface.labelled_rows(tables, p.problem)
    now = rows.where(months_of(rows.day) == np.datetime64(place.name, "M").astype(int))
    last = int(now.day.max())
    (frame, vocabularies), (first, _) = (predict(folder / name, now, tables, p) for name in (PRODUCTION, FIRST))
    scores = frame[[DAY, TARGET]].assign(
        first=first[SCORE], loop=frame[SCORE], oracle=oracle(rows, now, tables, p), **{DAY: now.day}
    )
    (folder / SCORES).mkdir(exist_ok=True)
    scores.to_parquet(folder / SCORES / f"{place.name}.parquet", index=False)
    found = weekly_alarms(folder / PRODUCTION, frame, vocabularies, p)
    verdict = decide_retraining(evidence(folder, found, len(now), last, ledger), p.monitor)
    return {
        "month": place.name,
        "last": last,
        "rows": len(now),
        "models": {name: measured(scores, name, p.evaluate) for name in MODELS},
        "action": verdict.action,
        "reasons": list(verdict.reasons),
    }


def act(month: Month, folder: Path) -> dict[str, Any]:
    """Retrain by the pipeline, apply the gate of the pull request, and promote; return the outcome and its reasons."""
    retrain()
    code, error = run_module("ops.cli", "model", "gate", "--base", "HEAD", allowed=(0, 3))
    if code:
        git.git("checkout", "--quiet", "--", "dvc.lock", "reports")
        run_module("dvc", "checkout", "--quiet", allowed=(0, 1))  # the receipt is in no cache
        return {"outcome": "refused by the gate", "why": _reasons(error)}
    commit(f"Retrain after {month['month']}")
    code, error = run_module("ops.cli", "model", "promote", allowed=(0, 3))
    if code:
        return {"outcome": "refused at promotion", "why": _reasons(error)}
    shutil.copytree(BUNDLE_DIR, folder / PRODUCTION, dirs_exist_ok=True)
    return {"outcome": "promoted"}


def _reasons(error: str) -> list[str]:
    return error.partition(": ")[2].partition(". The evidence")[0].rstrip(".").split("; ")


def begin(root: Path, folder: Path, first: int, more: Path | None) -> None:
    """Begin a year in a new folder, with the months of further files in its inbox."""
    if folder.exists() and any(folder.iterdir()):
        raise YearFailed(f"{folder} is not empty and has no complete beginning: remove it, or name another --folder.")
    for path in sorted(more.iterdir()) if more else ():
        month = re.search(r"\d{4}-\d{2}(?=\.)", path.name)
        if not month:
            raise YearFailed(f"{path}: the name must be TABLE-YYYY-MM and a form of `on-time data add`.")
        (folder / INBOX / month[0]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / INBOX / month[0])
    write_json(folder / BEGUN, asked(first, more))
    prepare(root, folder, first)
    _record([], folder)


def asked(first: int, more: Path | None) -> dict[str, Any]:
    """Return what decides the months of a year."""
    return {"months": first, "files": str(more) if more else None}


def live_year(root: Path, folder: Path, first: int, more: Path | None) -> str:
    """Run the year in a folder, from where it was left; return its table, which is written there with the picture."""
    folder = folder.resolve()
    more = more.resolve() if more else None
    if not (folder / LEDGER).exists():
        begin(root.resolve(), folder, first, more)
    before = json.loads((folder / BEGUN).read_text(encoding="utf-8"))
    if before != asked(first, more):
        raise YearFailed(f"{folder} was begun with {before}, not {asked(first, more)}: name another --folder.")
    os.chdir(folder / CLONE)
    ledger = list(json.loads((folder / LEDGER).read_text(encoding="utf-8")))
    places = sorted((folder / INBOX).iterdir()) if (folder / INBOX).exists() else []
    if not places:
        raise YearFailed(f"no month follows the first {first}: lower --months, or name --files.")
    for place in progress.track(places, "year"):
        if place.name not in {one["month"] for one in ledger}:
            ledger.append(happen(place, folder, ledger))
            _record(ledger, folder)
        month = next(one for one in ledger if one["month"] == place.name)
        if month["action"] == "retrain" and "outcome" not in month:
            month |= act(month, folder)
            _record(ledger, folder)
    return year_report.write_year(ledger, folder, params.load().evaluate)


def _record(ledger: list[Month], folder: Path) -> None:
    """Write the ledger in one step."""
    write_json(folder / f"{LEDGER}.new", finite(ledger))
    (folder / f"{LEDGER}.new").replace(folder / LEDGER)
