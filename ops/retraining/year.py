"""`on-time model year`: the closed loop in fast motion, month by month, in a clone of its own.

The first months are the first data. Each later month is first predicted by three models: the first one, the loop's
Production and one that is trained on everything before. Then its rows are added, the monitor compares its weeks, and
what it decides is done by the commands of the daily work: pipeline, gate, promotion.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from app.errors import OnTimeError
from app.features import Floats, day_number
from app.interface import Lookups
from app.model import bundle as model
from ops.gate.policy import table
from ops.monitoring.drift.compare import Alarm, alarms, compare
from ops.monitoring.drift.reference import SCORE, WEEK_DAYS, Reference, words
from ops.retraining.decide import Evidence, Verdict, decide
from stages import featurize, fetch, git, growth, interface, metrics, params, progress
from stages.files import BUNDLE_DIR, sha256, write_json
from stages.frames import DAY, TARGET, matrix
from stages.metrics import MetricSettings, Scored
from stages.params import Params
from stages.raw import load_tables
from stages.rows import Rows, months_of
from stages.sections import PARAMS_FILE
from stages.train import fit

CLONE, INBOX, LEDGER, PRODUCTION = "clone", "inbox", "ledger.json", "production"
SINCE = "since.json"
TEST_DAYS = 28
"""Days at the end of the data on which a retraining is compared; all before them are for training."""
MODELS = {"first": "first model", "loop": "the loop's model", "oracle": "retrained each month"}
FREE = {"roc_auc": 0.6}
"""The only floor: the others are for the months of the committed test, and a single month may be stormy."""


Month = dict[str, Any]
"""What is recorded of a month."""


class YearFailed(OnTimeError):
    """A step failed that the loop cannot do without."""


def run(*arguments: str, allowed: tuple[int, ...] = (0,)) -> tuple[int, str]:
    """Run a module in the clone; return its exit code and its output; raise YearFailed for any code but `allowed`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "ONTIME_"))}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    done = subprocess.run([sys.executable, "-m", *arguments], env=env, capture_output=True, text=True, check=False)
    if done.returncode not in allowed:
        raise YearFailed(f"`{' '.join(arguments[:4])}` failed in {Path.cwd()}: {done.stderr.strip()[-600:]}")
    return done.returncode, done.stdout + done.stderr


def commit(message: str) -> None:
    """Commit all that has changed in the clone."""
    git.git("add", "--all")
    git.git(
        "-c",
        "user.name=year",
        "-c",
        "user.email=year@localhost",
        "commit",
        "--quiet",
        "--allow-empty",
        "--message",
        message,
    )


def month_name(month: int) -> str:
    """Return a month since January 1970 as YYYY-MM."""
    return str(np.datetime64(int(month), "M"))


def prepare(root: Path, folder: Path, first: int) -> None:
    """Make the clone, with the first months as its data and their model as Production, and the inbox of the others."""
    git.git("clone", "--quiet", str(root), str(folder / CLONE))
    os.chdir(folder / CLONE)
    p, content = params.load(), yaml.safe_load(PARAMS_FILE.read_text(encoding="utf-8"))
    if p.data.added:
        raise YearFailed("the year begins with the first data: use a checkout without additions.")
    fetch.DATA_DIR.mkdir()
    tables = load_tables(root / fetch.DATA_DIR)
    numbered = {name: months_of(growth.day_numbers(name, frame, p.problem)) for name, frame in tables.items()}
    months = np.unique(np.concatenate(list(numbered.values())))
    if len(months) <= first:
        raise YearFailed(f"the data have {len(months)} months: choose fewer than {first} first ones.")
    for name, month in numbered.items():
        raw = pd.read_csv(root / fetch.DATA_DIR / f"{name}.csv", dtype=str, keep_default_na=False)
        kept = raw[month < months[first]] if month.size else raw
        kept.to_csv(fetch.DATA_DIR / f"{name}.csv", index=False)
        content["data"]["tables"][name] = sha256(fetch.DATA_DIR / f"{name}.csv")
        content["validate"]["rows"][name] = [len(kept), len(kept)]
        for later in months[first:] if month.size else ():
            place = folder / INBOX / month_name(later)
            place.mkdir(parents=True, exist_ok=True)
            raw[month == later].to_csv(place / f"{name}-{place.name}.csv.gz", index=False)
    content["problem"]["last_date"] = str(np.datetime64(int(months[first]), "M").astype("datetime64[D]") - 1)
    PARAMS_FILE.write_text(yaml.safe_dump(loosened(content), sort_keys=False), encoding="utf-8")
    run("dvc", "add", "--quiet", "data")
    run("dvc", "repro")
    commit("The first months")
    run("ops.cli", "model", "promote")
    keep_production(folder, day_number(params.load().problem.last_date))
    shutil.copytree(folder / PRODUCTION, folder / "first")


def loosened(content: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters with windows that follow the data, and without the bounds of a whole year's level."""
    content["featurize"] = {k: v for k, v in content["featurize"].items() if k not in ("train", "test")}
    content["featurize"] |= {"train_days": 9999, "test_days": TEST_DAYS}
    content["train"]["fold_months"] = 2
    shares = content["validate"]["missing_share"]
    content["validate"]["missing_share"] = {name: min(1.0, 3 * share) for name, share in shares.items()}
    gate = content["gate"]
    gate |= {"floors": FREE, "leak_roc_auc": 1.0, "brier_skill": 0.0, "log_loss_gain": 0.0}
    gate["slices"] = [name for name in gate["slices"] if "missing" not in name]
    gate["pull_request"]["slice_floors"] = {"roc_auc": 0.5}
    return content


def keep_production(folder: Path, last: int) -> None:
    """Keep the bundle that is Production, and the day to which its data reach (since 1970-01-01)."""
    shutil.rmtree(folder / PRODUCTION, ignore_errors=True)
    shutil.copytree(BUNDLE_DIR, folder / PRODUCTION)
    write_json(folder / PRODUCTION / SINCE, last)


def bundle(folder: Path) -> model.Bundle:
    """Return a kept bundle."""
    return model.load(folder / model.MODEL_FILE, folder / model.MANIFEST_FILE)


def predictions(known: model.Bundle, rows: Rows, tables: Any, p: Params) -> pd.DataFrame:
    """Return the features of rows by a bundle's lookups, with target, day and the bundle's score."""
    frame = featurize.features(rows, tables, known.lookups, p.problem)
    return frame.assign(**{SCORE: model.predict(known.booster, matrix(frame))})


def oracle(before: Rows, rows: Rows, tables: Any, p: Params) -> Floats:
    """Return the scores of a model that is trained on all rows before the month."""
    lookups: Lookups = interface.lookups(tables, before.frame, p.problem)
    learned, frame = (featurize.features(part, tables, lookups, p.problem) for part in (before, rows))
    booster = fit(matrix(learned), learned[TARGET].to_numpy(), p.train, label="retrained on all before")
    return model.predict(booster, matrix(frame))


def measured(target: Any, probability: Floats, p: Params) -> dict[str, float]:
    """Return the log loss and the ROC AUC of a month."""
    found = metrics.measure(
        Scored(target, probability, target), MetricSettings(p.evaluate.ece_bins, p.evaluate.riskiest_share)
    )
    return {name: found[name] for name in ("log_loss", "roc_auc")}


def weekly_alarms(folder: Path, known: model.Bundle, frame: pd.DataFrame, p: Params) -> tuple[Alarm, ...]:
    """Return the alarms of the month's whole weeks, each kind and feature once, at its largest."""
    vocabularies = known.lookups.vocabularies
    sample = pd.read_parquet(folder / model.REFERENCE_FILE)
    reference = Reference("year", words(sample, vocabularies), p.monitor.drift)
    window, first, found = words(frame, vocabularies), int(frame[DAY].min()), list[Alarm]()
    for start in range(first, int(frame[DAY].max()) - WEEK_DAYS + 2, WEEK_DAYS):
        week = window[window[DAY].between(start, start + WEEK_DAYS - 1)]
        if len(week) >= p.monitor.drift.min_rows:
            found += alarms(reference, compare(reference, week, week))
    kinds = {(alarm.kind, alarm.feature): alarm for alarm in sorted(found, key=lambda alarm: abs(alarm.value))}
    return tuple(kinds[key] for key in sorted(kinds))


def decided(folder: Path, found: tuple[Alarm, ...], rows: int, last: int, ledger: list[Month], p: Params) -> Verdict:
    """Return the decision at the end of a month, whose last day is given since 1970-01-01."""
    since = int(json.loads((folder / PRODUCTION / SINCE).read_text(encoding="utf-8")))
    retrained = [one["last"] for one in ledger if one["action"] == "retrain"]
    outcomes = rows + sum(one["rows"] for one in ledger if one["last"] > since)
    ago = float(last - retrained[-1]) if retrained else float("inf")
    return decide(Evidence("year", rows, found, outcomes, float(last - since), ago), p.monitor)


def act(name: str, last: int, folder: Path) -> tuple[str, str]:
    """Retrain by the pipeline, apply the gate of the pull request, and promote; return the outcome and its reason."""
    run("dvc", "repro")
    code, told = run("ops.cli", "model", "gate", "--base", "HEAD", allowed=(0, 3))
    if code:
        git.git("checkout", "--quiet", "--", "dvc.lock", "reports")
        run("dvc", "checkout", "--quiet", allowed=(0, 1))  # the receipt is in no cache
        return "refused by the gate", told.rpartition("error: ")[2].strip()
    commit(f"Retrained after {name}")
    code, told = run("ops.cli", "model", "promote", allowed=(0, 3))
    if code:
        return "refused at promotion", told.rpartition("error: ")[2].partition(" The evidence")[0].strip()
    keep_production(folder, last)
    return "promoted", ""


def happen(place: Path, folder: Path, ledger: list[Month]) -> Month:
    """Predict a month by the three models, add its rows, and let the monitor decide; return what is recorded."""
    run("ops.cli", "data", "add", *sorted(map(str, place.iterdir())))
    p = params.load()
    tables, rows = featurize.load(p.problem)
    within = months_of(rows.day) == int(np.datetime64(place.name, "M").astype(int))
    now, before = rows.where(within), rows.where(rows.day < rows.day[within].min())
    current, last = bundle(folder / PRODUCTION), int(now.day.max())
    frame = predictions(current, now, tables, p)
    scores = {
        "first": predictions(bundle(folder / "first"), now, tables, p)[SCORE].to_numpy(),
        "loop": frame[SCORE].to_numpy(),
        "oracle": oracle(before, now, tables, p),
    }
    found = weekly_alarms(folder / PRODUCTION, current, frame, p)
    verdict = decided(folder, found, len(now), last, ledger, p)
    commit(f"The rows of {place.name}")
    models = {name: measured(now.target, score, p) for name, score in scores.items()}
    facts = {"month": place.name, "last": last, "rows": len(now), "models": models}
    return facts | {"action": verdict.action, "reasons": list(verdict.reasons)}


def live(root: Path, folder: Path, first: int, more: Path | None) -> str:
    """Run the year in a folder, from where it was left; return its table, which is written there with the picture."""
    folder = folder.resolve()
    if not (folder / LEDGER).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        prepare(root.resolve(), folder, first)
        write_json(folder / LEDGER, [])
    os.chdir(folder / CLONE)
    for path in sorted(more.iterdir()) if more else ():
        place = folder / INBOX / path.name.partition(".")[0][-len("YYYY-MM") :]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    ledger: list[Month] = json.loads((folder / LEDGER).read_text(encoding="utf-8"))
    for place in progress.track(sorted((folder / INBOX).iterdir()), "year"):
        if place.name not in {one["month"] for one in ledger}:
            ledger.append(happen(place, folder, ledger))
            write_json(folder / LEDGER, ledger)
        month = next(one for one in ledger if one["month"] == place.name)
        if month["action"] == "retrain" and "outcome" not in month:
            month["outcome"], month["why"] = act(place.name, month["last"], folder)
            write_json(folder / LEDGER, ledger)
    text = as_table(ledger)
    (folder / "year.md").write_text(text + "\n", encoding="utf-8")
    draw(ledger, folder / "year.png")
    return text


def as_table(ledger: list[Month]) -> str:
    """Return the months as a Markdown table: log loss and ROC AUC of each model, the decision and its outcome."""
    rows = []
    for one in ledger:
        cells = [f"{one['models'][name][metric]:.4f}" for metric in ("log_loss", "roc_auc") for name in MODELS]
        decision = f"{one['action']}: {'; '.join(one['reasons'][:3])}"
        outcome = ": ".join(filter(None, (one.get("outcome", ""), one.get("why", "")[:200])))
        rows.append([one["month"], *cells, decision, outcome])
    head = [f"{metric} {label}" for metric in ("log loss,", "ROC AUC,") for label in MODELS.values()]
    return table(["month", *head, "decision", "outcome"], rows)


def draw(ledger: list[Month], path: Path) -> None:
    """Draw log loss and ROC AUC month by month, with a mark where a model was promoted."""
    from matplotlib.figure import Figure  # pylint: disable=import-outside-toplevel # most commands draw nothing

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    names = [one["month"] for one in ledger]
    colours = {"first": "#9a9a9a", "loop": "#0969da", "oracle": "#2da44e"}
    for axis, (metric, title) in zip(
        figure.subplots(1, 2), (("log_loss", "log loss"), ("roc_auc", "ROC AUC")), strict=True
    ):
        for name, label in MODELS.items():
            values = [one["models"][name][metric] for one in ledger]
            axis.plot(names, values, marker="o", markersize=4, color=colours[name], label=label)
        for month in (one["month"] for one in ledger if one.get("outcome") == "promoted"):
            axis.axvline(month, color="#0969da", linewidth=0.7, linestyle=":")
        axis.set_title(title, fontsize=10)
        axis.tick_params(axis="x", rotation=45, labelsize=8)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=100)
