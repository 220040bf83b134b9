"""Stage evaluate: measure the model and its baselines on the test rows; write metrics, plots and the model card.

Features are read file by file; targets, probabilities and slices of the test rows are in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd

from app.model import bundles
from stages import interface, params
from stages.base.errors import DataInvalid, run
from stages.base.paths import (
    BUNDLE_DIR,
    EVALUATION_FILE,
    FEATURES_DIR,
    METRICS_FILE,
    PREDICTIONS_FILE,
    ROLLING_FILE,
    rounded,
    write_json,
)
from stages.evaluation import metrics, model_card, plots
from stages.evaluation.baseline import logistic_regression
from stages.evaluation.metrics import MetricSettings, describe
from stages.evaluation.predictions import LOGISTIC, MODEL, TestPredictions, predict
from stages.evaluation.scores import backtest, by_slice, intervals, score
from stages.features import feature_files
from stages.features.feature_files import DAY, KEY, TARGET, described
from stages.problem_kit.params import EvaluateParams
from stages.problem_kit.rows import day_of
from stages.tracking import mlflow_runs
from stages.training.boosting import Source

CARD_FILE = Path("reports/model_card.md")


def refuse_known(train: pd.DataFrame, test: pd.DataFrame) -> None:
    """Raise DataInvalid if test rows are among the training rows, by key."""
    known = test[test[KEY].isin(train[KEY])]
    if len(known):
        first = day_of(known[DAY].min())
        raise DataInvalid(
            f"{len(known):,} of {len(test):,} test rows are among the training rows, the first of {first}: a "
            "measurement on them would prove nothing. `dvc repro --force featurize` rebuilds both."
        )


def refuse_others(train: pd.DataFrame, bundle: bundles.Bundle) -> None:
    """Raise DataInvalid unless these are the rows that the bundle was trained on: others may be test rows."""
    rows = described(train)
    if bundle.manifest.get("rows", {}).get("train") != rows:
        raise DataInvalid(
            f"{BUNDLE_DIR} was not trained on the {rows['rows']:,} rows, {rows['first']} to {rows['last']}, in "
            f"{FEATURES_DIR}/train. `dvc repro evaluate` rebuilds both."
        )


def evaluate(train: pd.DataFrame, test: TestPredictions, bundle: bundles.Bundle, p: EvaluateParams) -> dict[str, Any]:
    """Return the evaluation, from the predictions of the test rows and day, target and key of the training rows."""
    settings = MetricSettings(p.ece_bins, p.riskiest_share)
    scored, target = test.scored(MODEL), test.facts[TARGET].to_numpy()
    constant = np.full(len(target), train[TARGET].mean())
    baselines = {"constant": score(test.facts, constant), LOGISTIC: test.scored(LOGISTIC)}
    alerts = scored.probability >= bundle.threshold
    return {
        "test": metrics.measure(scored, settings),
        "baselines": {name: metrics.measure(baseline, settings) for name, baseline in baselines.items()},
        "intervals": intervals(scored, p, settings),
        "baseline_intervals": {LOGISTIC: intervals(baselines[LOGISTIC], p, settings)},
        "slices": by_slice(scored, test.slices, settings),
        "scenarios": {
            name: describe(test.scored(name), settings) for name in test.probability if name not in (MODEL, LOGISTIC)
        },
        "threshold": {
            "value": bundle.threshold,
            "alert_share": float(alerts.mean()),
            "precision": float(target[alerts].mean()) if alerts.any() else 0.0,
            "recall": float(alerts[target == 1].mean()),
        },
        "rows": {"train": described(train), "test": described(test.facts)},
        "rate": {"train": float(train[TARGET].mean()), "test": float(target.mean())},
    }


def main() -> None:
    """Read build/features and build/bundle; write the test predictions and reports/."""
    all_params = params.load()
    p, names = all_params.evaluate, interface.scenarios(all_params.problem)
    inputs = ["build/features", "build/bundle", str(ROLLING_FILE)]
    with mlflow_runs.stage_run("evaluate", p.model_dump(mode="json"), inputs) as log:
        settings = MetricSettings(p.ece_bins, p.riskiest_share)
        bundle = bundles.load(BUNDLE_DIR / bundles.MODEL_FILE, BUNDLE_DIR / bundles.MANIFEST_FILE)
        train = Source.files("train")
        refuse_others(train.facts, bundle)
        refuse_known(train.facts, feature_files.read("test", [DAY, KEY]))
        test = predict(bundle, logistic_regression(train, p.seed), names)
        facts = evaluate(train.facts, test, bundle, p)
        predictions = test.facts.assign(probability=test.probability[MODEL])
        facts["backtest"] = backtest(pd.read_parquet(ROLLING_FILE), predictions, settings)
        facts["bundle_digest"] = bundle.digest
        facts = rounded(facts)
        predictions.to_parquet(PREDICTIONS_FILE, index=False)
        write_json(METRICS_FILE, {"test": facts["test"], **facts["baselines"]})
        write_json(EVALUATION_FILE, facts)
        booster = lightgbm.Booster(model_file=BUNDLE_DIR / bundles.MODEL_FILE)
        plots.write_plots(test.scored(MODEL), facts, booster, settings)
        CARD_FILE.write_text(model_card.model_card(facts), encoding="utf-8")
        log.metrics(**facts["test"])
        for path in (METRICS_FILE, EVALUATION_FILE, CARD_FILE, plots.PLOTS_DIR):
            log.artifact(path)


if __name__ == "__main__":
    run(main)
