"""Stage evaluate: measure the model and its baselines on the test rows; write metrics, plots and the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from app.features import Floats
from app.interface import CATEGORIES, FEATURE_NAMES, FEATURES, NUMBERS, Lookups, without
from app.model import bundle as model
from stages import interface, metrics, model_card, params, plots, recording
from stages.errors import DataInvalid, run
from stages.files import BUNDLE_DIR, EVALUATION_FILE, METRICS_FILE, PREDICTIONS_FILE, ROLLING_FILE, rounded, write_json
from stages.frames import DAY, GROUP, KEY, OUT_DIR, TARGET, described, matrix, scenario_file
from stages.metrics import MetricSettings, Scored, describe
from stages.rows import day_of, month_names, months_of
from stages.sections import EvaluateParams

CARD_FILE = Path("reports/model_card.md")


def logistic_regression(train: pd.DataFrame, test: pd.DataFrame) -> Floats:
    """Return the test probabilities of a logistic regression on the same features; medians replace missing values."""
    columns = ColumnTransformer(
        [
            (
                "numbers",
                make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
                list(NUMBERS),
            ),
            ("categories", OneHotEncoder(handle_unknown="ignore"), list(CATEGORIES)),
        ]
    )
    regression = make_pipeline(columns, LogisticRegression(max_iter=300))
    regression.fit(train[list(FEATURE_NAMES)], train[TARGET])
    return np.asarray(regression.predict_proba(test[list(FEATURE_NAMES)])[:, 1])


def slices(frame: pd.DataFrame, lookups: Lookups) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the row mask of each slice: those of the problem, and the months."""
    month = months_of(frame[DAY].to_numpy())
    months: dict[str, npt.NDArray[np.bool_]] = {f"month={name}": month == m for m, name in month_names(month).items()}
    return interface.slices(frame, lookups) | months


def score(frame: pd.DataFrame, probability: npt.ArrayLike) -> Scored:
    """Return the target and the group of feature rows with their probabilities."""
    return Scored(frame[TARGET].to_numpy(), np.asarray(probability), frame[GROUP].to_numpy())


def by_slice(scored: Scored, frame: pd.DataFrame, lookups: Lookups, settings: MetricSettings) -> dict[str, Any]:
    """Return the metrics of each slice that has rows."""
    parts = slices(frame, lookups).items()
    return {name: describe(scored.where(rows), settings) for name, rows in parts if rows.any()}


def intervals(scored: Scored, p: EvaluateParams, settings: MetricSettings) -> dict[str, list[float]]:
    """Return the 95 % confidence interval of each metric by a bootstrap over groups."""
    counts = metrics.resample_groups(scored.group, p.bootstrap, p.seed)
    return {k: list(metrics.interval(v)) for k, v in metrics.measure_weighted(scored, counts, settings).items()}


def backtest(rolling: pd.DataFrame, test: pd.DataFrame, settings: MetricSettings) -> dict[str, Any]:
    """Return the metrics by month: rolling-origin predictions in training months, the final model's in test months."""
    both = pd.concat([rolling, test], ignore_index=True)
    month = months_of(both[DAY].to_numpy())
    months: dict[str, Any] = {}
    for number, name in month_names(month).items():
        part = both[month == number]
        scored = Scored(part[TARGET].to_numpy(), part["probability"].to_numpy(), part[GROUP].to_numpy())
        months[name] = describe(scored, settings)
    return months


def damaged(bundle: model.Bundle, test: Scored, names: list[str], settings: MetricSettings) -> dict[str, Any]:
    """Return the test metrics in each scenario of the problem, and without each group of features."""
    matrices = {name: matrix(pd.read_parquet(scenario_file(name))) for name in names}
    intact = matrix(pd.read_parquet(OUT_DIR / "test.parquet"))
    groups = dict.fromkeys(feature.group for feature in FEATURES if feature.group)
    matrices |= {f"without {group}": without(group, intact) for group in groups}
    return {
        name: describe(Scored(test.target, model.predict(bundle.booster, features), test.group), settings)
        for name, features in matrices.items()
    }


def refuse_known(train: pd.DataFrame, test: pd.DataFrame) -> None:
    """Raise DataInvalid if test rows are among the training rows, by key."""
    known = test[test[KEY].isin(train[KEY])]
    if len(known):
        first = day_of(known[DAY].min())
        raise DataInvalid(
            f"{len(known):,} of {len(test):,} test rows are among the training rows, the first of {first}: a "
            "measurement on them would prove nothing. `dvc repro --force featurize` makes both anew."
        )


def refuse_others(train: pd.DataFrame, bundle: model.Bundle) -> None:
    """Raise DataInvalid unless these are the rows that the bundle was trained on: others may be test rows."""
    rows = described(train)
    if bundle.manifest.get("rows", {}).get("train") != rows:
        raise DataInvalid(
            f"{BUNDLE_DIR} was not trained on the {rows['rows']:,} rows, {rows['first']} to {rows['last']}, in "
            f"{OUT_DIR}/train.parquet. `dvc repro evaluate` makes both anew."
        )


def evaluate(
    train: pd.DataFrame, test: pd.DataFrame, bundle: model.Bundle, p: EvaluateParams
) -> tuple[Scored, dict[str, Any]]:
    """Return the model's scores on the test rows, and the evaluation."""
    refuse_known(train, test)
    settings = MetricSettings(p.ece_bins, p.riskiest_share)
    target, group = test[TARGET].to_numpy(), test[GROUP].to_numpy()
    scored = Scored(target, model.predict(bundle.booster, matrix(test)).round(9), group)
    baselines = {
        "constant": Scored(target, np.full(len(test), train[TARGET].mean()), group),
        "logistic": Scored(target, logistic_regression(train, test), group),
    }
    alerts = scored.probability >= bundle.threshold
    facts: dict[str, Any] = {
        "test": metrics.measure(scored, settings),
        "baselines": {name: metrics.measure(baseline, settings) for name, baseline in baselines.items()},
        "intervals": intervals(scored, p, settings),
        "baseline_intervals": {"logistic": intervals(baselines["logistic"], p, settings)},
        "slices": by_slice(scored, test, bundle.lookups, settings),
        "threshold": {
            "value": bundle.threshold,
            "alert_share": float(alerts.mean()),
            "precision": float(target[alerts].mean()) if alerts.any() else 0.0,
            "recall": float(alerts[target == 1].mean()),
        },
        "rows": {"train": described(train), "test": described(test)},
        "rate": {"train": float(train[TARGET].mean()), "test": float(target.mean())},
    }
    return scored, facts


def main() -> None:
    """Read build/features and build/bundle; write the test predictions and reports/."""
    all_params = params.load()
    p, names = all_params.evaluate, interface.scenarios(all_params.problem)
    with recording.stage_run("evaluate", p, inputs=["build/features", "build/bundle", str(ROLLING_FILE)]) as log:
        settings = MetricSettings(p.ece_bins, p.riskiest_share)
        bundle = model.load(BUNDLE_DIR / model.MODEL_FILE, BUNDLE_DIR / model.MANIFEST_FILE)
        train, test = (pd.read_parquet(OUT_DIR / f"{name}.parquet") for name in ("train", "test"))
        refuse_others(train, bundle)
        scored, facts = evaluate(train, test, bundle, p)
        predictions = test[[DAY, GROUP, TARGET, KEY]].assign(probability=scored.probability)
        facts["backtest"] = backtest(pd.read_parquet(ROLLING_FILE), predictions, settings)
        facts["scenarios"] = damaged(bundle, scored, names, settings)
        facts["bundle_digest"] = bundle.digest
        facts = rounded(facts)
        predictions.to_parquet(PREDICTIONS_FILE, index=False)
        write_json(METRICS_FILE, {"test": facts["test"], **facts["baselines"]})
        write_json(EVALUATION_FILE, facts)
        plots.write_plots(scored, facts, lightgbm.Booster(model_file=BUNDLE_DIR / model.MODEL_FILE), settings)
        CARD_FILE.write_text(model_card.model_card(facts), encoding="utf-8")
        log.metrics(**facts["test"])
        for path in (METRICS_FILE, EVALUATION_FILE, CARD_FILE, plots.PLOTS_DIR):
            log.artifact(path)


if __name__ == "__main__":
    run(main)
