"""Stage train: train the model, choose the threshold on rolling-origin predictions, and write the bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import pandas as pd

from app.model import bundles
from stages import params
from stages.base.errors import run
from stages.base.paths import BUNDLE_DIR, FEATURES_DIR, ROLLING_FILE, sha256, write_json
from stages.features import feature_files
from stages.features.feature_files import DAY, KEY, LOOKUPS_FILE, TARGET, described
from stages.on_ray import distributed
from stages.problem_kit.params import TrainParams
from stages.tracking import logged_model, mlflow_runs
from stages.training.backtest import fold_label, folds, rolling_origin, threshold_of
from stages.training.boosting import LOSS_STEP, Source, fit, lightgbm_params
from stages.training.bundle import write_bundle, write_reference

LOSS_FILE = Path("reports/plots/loss.csv")
TRAINING_FILE = Path("reports/training.json")


class Trained(NamedTuple):
    """What `rolling_origin` returns, the threshold, the final model, and its training loss by round."""

    rolling: pd.DataFrame
    fold_losses: pd.DataFrame
    threshold: float
    booster: lightgbm.Booster
    loss: list[float]


def train_here(source: Source, p: TrainParams) -> Trained:
    """Train the models of the folds, and then the final one, on this machine."""
    rolling, fold_losses = rolling_origin(source, p)
    threshold, curve = threshold_of(rolling, p), dict[str, Any]()
    booster = fit(source, p, curve=curve, label="final model")
    return Trained(rolling, fold_losses, threshold, booster, curve["train"]["binary_logloss"])


def train_on_ray(source: Source, p: TrainParams) -> Trained:
    """Train the same models in one run of Ray Train; its workers read the files of features."""
    files, months = feature_files.files("train"), folds(source, p)
    fits = [
        distributed.Fit(fold_label(fold), [f for f in files if feature_files.month_of(f) < fold]) for fold in months
    ]
    *folded, final = distributed.fit(
        [*fits, distributed.Fit("final model", files)], p, lightgbm_params(p), BUNDLE_DIR.parent
    )
    rolling, fold_losses = rolling_origin(source, p, months, [one.booster for one in folded])
    return Trained(rolling, fold_losses, threshold_of(rolling, p), final.booster, final.loss)


def main() -> None:
    """Read build/features; write build/bundle, the rolling-origin predictions and the loss curves."""
    p = params.load()
    with mlflow_runs.stage_run("train", p.train.model_dump(mode="json"), ["build/features"]) as log:
        train = Source.files("train")
        trained = train_on_ray(train, p.train) if p.engine == "ray" else train_here(train, p.train)
        shutil.rmtree(BUNDLE_DIR, ignore_errors=True)
        write_reference(trained.rolling, BUNDLE_DIR / bundles.REFERENCE_FILE)
        test = feature_files.read("test", [DAY, KEY, TARGET])
        facts = {
            "threshold": trained.threshold,
            "rows": {"train": described(train.facts), "selection": described(trained.rolling), "test": described(test)},
            "lookups": json.loads(LOOKUPS_FILE.read_text(encoding="utf-8")),
            "training_data_sha256": feature_files.digest("train"),
            "reference_sha256": sha256(BUNDLE_DIR / bundles.REFERENCE_FILE),
        }
        requests = json.loads((FEATURES_DIR / "golden.json").read_text(encoding="utf-8"))
        write_bundle(trained.booster, facts, requests, BUNDLE_DIR)
        trained.rolling.drop(columns="row").to_parquet(ROLLING_FILE, index=False)
        _write_losses(trained.loss, trained.fold_losses)
        measured = {
            "threshold": trained.threshold,
            "train_log_loss": round(trained.loss[-1], 6),
            "rolling_log_loss": round(float(trained.fold_losses.iloc[-1].mean()), 6),
        }
        write_json(TRAINING_FILE, measured)
        log.metrics(**measured, model_bytes=(BUNDLE_DIR / bundles.MODEL_FILE).stat().st_size)
        for path in (LOSS_FILE, TRAINING_FILE):
            log.artifact(path)
        logged_model.log_bundle(BUNDLE_DIR)


def _write_losses(train_loss: list[float], fold_losses: pd.DataFrame) -> None:
    rounds = np.arange(LOSS_STEP, len(train_loss) + 1, LOSS_STEP)
    table = pd.DataFrame(
        {"round": rounds, "train": np.array(train_loss)[rounds - 1], "rolling": fold_losses.mean(axis=1)}
    )
    LOSS_FILE.parent.mkdir(parents=True, exist_ok=True)
    table.round(6).to_csv(LOSS_FILE, index=False)


if __name__ == "__main__":
    run(main)
