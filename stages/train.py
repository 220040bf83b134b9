"""Stage train: train the model, choose the threshold on rolling-origin predictions, and write the bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import pandas as pd

from app.interface import FEATURE_NAMES, Lookups, Request, columns, compute
from app.model import bundle as model
from app.problem_kit.features import Floats
from stages import params
from stages.base.errors import DataInvalid, run
from stages.base.paths import BUNDLE_DIR, ROLLING_FILE, sha256, write_json
from stages.features import feature_files
from stages.features.feature_files import DAY, KEY, LOOKUPS_FILE, OUT_DIR, TARGET, described
from stages.on_ray import distributed
from stages.problem_kit.params import TrainParams
from stages.problem_kit.rows import months_of
from stages.tracking import mlflow_runs
from stages.training.boosting import Source, Targets, fit, lightgbm_params

LOSS_FILE = Path("reports/plots/loss.csv")
TRAINING_FILE = Path("reports/training.json")
LOSS_STEP = 5
"""Rounds between two points of the loss curves, and the least number of rounds (train.rounds)."""


class Trained(NamedTuple):
    """What `rolling_origin` returns, the threshold, the final model, and its training loss by round."""

    rolling: pd.DataFrame
    fold_losses: pd.DataFrame
    threshold: float
    booster: lightgbm.Booster
    loss: list[float]


def folds(source: Source, p: TrainParams) -> list[int]:
    """Return the months of the folds, since January 1970."""
    return p.folds([int(month) for month in np.unique(months_of(source.facts[DAY].to_numpy()))])


def rolling_origin(
    source: Source,
    p: TrainParams,
    months: Sequence[int] | None = None,
    boosters: Iterable[lightgbm.Booster] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predict each fold's month (by default those of `folds`) by a model trained on all months before it.

    The models are trained here, one after the other, or given as `boosters`.

    Returns the predictions (day, group, target, key, probability) and the loss on the fold's month by round.
    """
    month = months_of(source.facts[DAY].to_numpy())
    months = folds(source, p) if months is None else months
    parts, losses = [], {}
    for fold, booster in zip(months, boosters or _fold_boosters(source, p, months), strict=True):
        now = month == fold
        features = source.features(now)
        probability = model.predict(booster, features)
        parts.append(source.facts[now].assign(probability=probability.round(9), row=np.flatnonzero(now)))
        losses[fold] = _loss_by_round(booster, features, source.target[now])
    return pd.concat(parts, ignore_index=True), pd.DataFrame(losses)


def _fold_boosters(source: Source, p: TrainParams, months: Sequence[int]) -> Iterator[lightgbm.Booster]:
    month = months_of(source.facts[DAY].to_numpy())
    return (fit(source, p, month < fold, label=_label(fold)) for fold in months)


def _label(fold: int) -> str:
    return f"fold of month {fold % 12 + 1}"


def _loss_by_round(booster: lightgbm.Booster, features: Floats, target: Targets) -> list[float]:
    """Return the log loss after every `LOSS_STEP` rounds, in one pass over the trees."""
    rounds = range(LOSS_STEP, booster.current_iteration() + 1, LOSS_STEP)
    raw = np.zeros(len(features))
    losses = []
    for last in rounds:
        raw += np.asarray(
            booster.predict(features, start_iteration=last - LOSS_STEP, num_iteration=LOSS_STEP, raw_score=True)
        )
        losses.append(float(np.mean(np.logaddexp(0, raw) - target * raw)))
    return losses


def choose_threshold(target: Targets, probability: Floats, rule: str, value: float) -> float:
    """Choose the decision threshold from out-of-fold predictions by the rule in params.yaml.

    `precision`: the lowest threshold with at least this precision;
    `alert_share`: the threshold that this share of the rows reaches.
    """
    order = np.argsort(-probability, kind="stable")
    if rule == "alert_share":
        return float(np.round(np.quantile(probability, 1 - value), 6))
    precision = np.cumsum(target[order]) / np.arange(1, len(order) + 1)
    enough = np.flatnonzero(precision >= value)
    if not enough.size:
        raise DataInvalid(
            f"train.threshold_value: no threshold of these folds gives a precision of {value}, the highest is "
            f"{precision.max():.3f}; choose a lower one."
        )
    return float(np.round(probability[order][enough[-1]], 6))


def train_here(source: Source, p: TrainParams) -> Trained:
    """Train the models of the folds, and then the final one, on this machine."""
    rolling, fold_losses = rolling_origin(source, p)
    threshold, curve = _threshold(rolling, p), dict[str, Any]()
    booster = fit(source, p, curve=curve, label="final model")
    return Trained(rolling, fold_losses, threshold, booster, curve["train"]["binary_logloss"])


def train_on_ray(source: Source, p: TrainParams) -> Trained:
    """Train the same models in one run of Ray Train; its workers read the files of features."""
    files, months = feature_files.files("train"), folds(source, p)
    fits = [distributed.Fit(_label(fold), [f for f in files if feature_files.month_of(f) < fold]) for fold in months]
    *folded, final = distributed.fit(
        [*fits, distributed.Fit("final model", files)], p, lightgbm_params(p), BUNDLE_DIR.parent
    )
    rolling, fold_losses = rolling_origin(source, p, months, [one.booster for one in folded])
    return Trained(rolling, fold_losses, _threshold(rolling, p), final.booster, final.loss)


def _threshold(rolling: pd.DataFrame, p: TrainParams) -> float:
    target, probability = rolling[TARGET].to_numpy(), rolling["probability"].to_numpy()
    return choose_threshold(target, probability, p.threshold_rule, p.threshold_value)


def write_reference(rolling: pd.DataFrame, path: Path) -> None:
    """Write the reference sample with its out-of-fold probabilities (NaN before the first fold)."""
    reference = pd.read_parquet(OUT_DIR / "reference.parquet")
    probability = rolling.set_index("row")["probability"].reindex(reference.index)
    path.parent.mkdir(parents=True, exist_ok=True)
    reference.assign(probability=probability).to_parquet(path, index=False)


def write_bundle(
    booster: lightgbm.Booster, facts: dict[str, Any], requests: list[dict[str, Any]], directory: Path
) -> None:
    """Write model and manifest; the golden probabilities are computed from the written model."""
    directory.mkdir(parents=True, exist_ok=True)
    booster.save_model(directory / model.MODEL_FILE)
    written = lightgbm.Booster(model_file=directory / model.MODEL_FILE)
    rows = columns([Request.model_validate(request) for request in requests])
    probabilities = model.predict(written, compute(rows, Lookups.from_json(facts["lookups"])))
    golden = [{"request": r, "probability": round(float(p), 12)} for r, p in zip(requests, probabilities, strict=True)]
    facts |= {"model_sha256": sha256(directory / model.MODEL_FILE), "features": list(FEATURE_NAMES), "golden": golden}
    write_json(directory / model.MANIFEST_FILE, facts)


def main() -> None:
    """Read build/features; write build/bundle, the rolling-origin predictions and the loss curves."""
    p = params.load()
    with mlflow_runs.stage_run("train", p.train.model_dump(mode="json"), ["build/features"]) as log:
        train = Source.files("train")
        trained = train_on_ray(train, p.train) if p.engine == "ray" else train_here(train, p.train)
        shutil.rmtree(BUNDLE_DIR, ignore_errors=True)
        write_reference(trained.rolling, BUNDLE_DIR / model.REFERENCE_FILE)
        test = feature_files.read("test", [DAY, KEY, TARGET])
        facts = {
            "threshold": trained.threshold,
            "rows": {"train": described(train.facts), "selection": described(trained.rolling), "test": described(test)},
            "lookups": json.loads(LOOKUPS_FILE.read_text(encoding="utf-8")),
            "training_data_sha256": feature_files.digest("train"),
            "reference_sha256": sha256(BUNDLE_DIR / model.REFERENCE_FILE),
        }
        requests = json.loads((OUT_DIR / "golden.json").read_text(encoding="utf-8"))
        write_bundle(trained.booster, facts, requests, BUNDLE_DIR)
        trained.rolling.drop(columns="row").to_parquet(ROLLING_FILE, index=False)
        _write_losses(trained.loss, trained.fold_losses)
        measured = {
            "threshold": trained.threshold,
            "train_log_loss": round(trained.loss[-1], 6),
            "rolling_log_loss": round(float(trained.fold_losses.iloc[-1].mean()), 6),
        }
        write_json(TRAINING_FILE, measured)
        log.metrics(**measured, model_bytes=(BUNDLE_DIR / model.MODEL_FILE).stat().st_size)
        for path in (LOSS_FILE, TRAINING_FILE):
            log.artifact(path)
        mlflow_runs.log_bundle(BUNDLE_DIR)


def _write_losses(train_loss: list[float], fold_losses: pd.DataFrame) -> None:
    rounds = np.arange(LOSS_STEP, len(train_loss) + 1, LOSS_STEP)
    table = pd.DataFrame(
        {"round": rounds, "train": np.array(train_loss)[rounds - 1], "rolling": fold_losses.mean(axis=1)}
    )
    LOSS_FILE.parent.mkdir(parents=True, exist_ok=True)
    table.round(6).to_csv(LOSS_FILE, index=False)


if __name__ == "__main__":
    run(main)
