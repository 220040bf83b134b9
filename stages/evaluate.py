"""evaluate: the model on the test months, beside its baselines, with intervals, slices, plots and a card."""

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

from app.model import bundle as model
from app.problem.features import CATEGORICAL, FEATURES, WEATHER_FEATURES
from app.problem.lookups import Floats, Tables
from stages import featurize, metrics
from stages import model_card as report
from stages import params, tracking
from stages.errors import run
from stages.featurize import DAY, TARGET
from stages.files import EVALUATION_FILE, METRICS_FILE, write_json
from stages.metrics import Scored, Settings
from stages.params import EvaluateParams
from stages.train import BUNDLE_DIR, ROLLING_FILE, matrix, month_of, without_weather

PREDICTIONS_FILE = Path("build/predictions.parquet")
CARD_FILE = Path("reports/model_card.md")

HOUR_BANDS = {"05-09": (0, 9), "09-13": (9, 13), "13-17": (13, 17), "17-24": (17, 24)}
MIN_SLICE_ROWS = 200


def logistic_regression(train: pd.DataFrame, test: pd.DataFrame) -> Floats:
    """Return the test probabilities of a logistic regression on the same features, medians in their gaps."""
    numeric = [name for name in FEATURES if name not in CATEGORICAL]
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()), numeric),
            ("categories", OneHotEncoder(handle_unknown="ignore"), list(CATEGORICAL)),
        ]
    )
    regression = make_pipeline(columns, LogisticRegression(max_iter=300))
    regression.fit(train[list(FEATURES)], train[TARGET])
    return np.asarray(regression.predict_proba(test[list(FEATURES)])[:, 1])


def slices(frame: pd.DataFrame, tables: Tables) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the rows of each slice: origin, carrier, month, hour of departure, weather missing or not."""
    rows: dict[str, npt.NDArray[np.bool_]] = {}
    for column in ("origin", "carrier"):
        for code, name in enumerate(tables.vocabularies[column]):
            rows[f"{column}={name}"] = frame[column].to_numpy() == code
    month, hour = month_of(frame[DAY].to_numpy()), frame["departure_minute"].to_numpy() // 60
    for number in np.unique(month):
        rows[f"month={number:02d}"] = month == number
    for name, (first, last) in HOUR_BANDS.items():
        rows[f"hour={name}"] = (hour >= first) & (hour < last)
    missing = frame[list(WEATHER_FEATURES)].isna().all(axis=1).to_numpy()
    return rows | {"weather=missing": missing, "weather=present": ~missing}


def describe(scored: Scored, settings: Settings) -> dict[str, Any]:
    """Return rows, rate, mean probability and metrics of some rows; no metrics for too few rows or one class only."""
    facts: dict[str, Any] = {"rows": len(scored.target)}
    if len(scored.target) >= MIN_SLICE_ROWS and 0 < scored.target.mean() < 1:
        facts |= {"rate": float(scored.target.mean()), "mean_probability": float(scored.probability.mean())}
        facts |= metrics.measure(scored, settings)
    return facts


def intervals(scored: Scored, p: EvaluateParams, settings: Settings) -> dict[str, list[float]]:
    """Return the 95 % interval of each metric by a bootstrap over days."""
    counts = metrics.resample_days(scored.day, p.bootstrap, p.seed)
    return {k: list(metrics.interval(v)) for k, v in metrics.measure_weighted(scored, counts, settings).items()}


def backtest(rolling: pd.DataFrame, test: Scored, settings: Settings) -> dict[str, Any]:
    """Return the metrics by month: rolling-origin predictions in the training months, then the final model's."""
    past = Scored(rolling[TARGET].to_numpy(), rolling["probability"].to_numpy(), rolling[DAY].to_numpy())
    return {
        f"{month:02d}": describe(scored.where(month_of(scored.day) == month), settings)
        for scored in (past, test)
        for month in np.unique(month_of(scored.day))
    }


def weather_scenarios(bundle: model.Bundle, test: Scored, ages: list[int], settings: Settings) -> dict[str, Any]:
    """Return the metrics on the test months with older weather and with none."""
    frames = {f"{age} h old": pd.read_parquet(featurize.OUT_DIR / f"test_weather_{age}h_old.parquet") for age in ages}
    matrices = {name: matrix(frame) for name, frame in frames.items()}
    now = matrix(pd.read_parquet(featurize.OUT_DIR / "test.parquet"))
    matrices["none"] = without_weather(now)
    return {
        name: describe(Scored(test.target, model.predict(bundle.booster, features), test.day), settings)
        for name, features in matrices.items()
    }


def evaluate(
    train: pd.DataFrame, test: pd.DataFrame, bundle: model.Bundle, p: EvaluateParams
) -> tuple[Scored, dict[str, Any]]:
    """Return the model's scores on the test months, and all that is measured from them."""
    settings = Settings(p.ece_bins, p.riskiest_share)
    target, day = test[TARGET].to_numpy(), test[DAY].to_numpy()
    scored = Scored(target, model.predict(bundle.booster, matrix(test)).round(9), day)
    baselines = {
        "constant": Scored(target, np.full(len(test), train[TARGET].mean()), day),
        "logistic": Scored(target, logistic_regression(train, test), day),
    }
    alerts = scored.probability >= bundle.threshold
    facts: dict[str, Any] = {
        "test": metrics.measure(scored, settings),
        "baselines": {name: metrics.measure(baseline, settings) for name, baseline in baselines.items()},
        "intervals": intervals(scored, p, settings),
        "baseline_intervals": {"logistic": intervals(baselines["logistic"], p, settings)},
        "slices": {
            n: describe(scored.where(rows), settings) for n, rows in slices(test, bundle.tables).items() if rows.any()
        },
        "threshold": {
            "value": bundle.threshold,
            "alert_share": float(alerts.mean()),
            "precision": float(target[alerts].mean()) if alerts.any() else 0.0,
            "recall": float(alerts[target == 1].mean()),
        },
        "rows": {"train": len(train), "test": len(test)},
        "rate": {"train": float(train[TARGET].mean()), "test": float(target.mean())},
    }
    return scored, facts


def main() -> None:
    """Read build/features and build/bundle, write the predictions of the test months and reports/."""
    all_params = params.load()
    p, ages = all_params.evaluate, all_params.featurize.weather_age_hours
    with tracking.stage_run("evaluate", p, inputs=["build/features", "build/bundle", str(ROLLING_FILE)]) as log:
        settings = Settings(p.ece_bins, p.riskiest_share)
        bundle = model.load(BUNDLE_DIR / model.MODEL_FILE, BUNDLE_DIR / model.MANIFEST_FILE)
        train, test = (pd.read_parquet(featurize.OUT_DIR / f"{name}.parquet") for name in ("train", "test"))
        scored, facts = evaluate(train, test, bundle, p)
        facts["backtest"] = backtest(pd.read_parquet(ROLLING_FILE), scored, settings)
        facts["weather"] = weather_scenarios(bundle, scored, ages, settings)
        facts["bundle_digest"] = bundle.digest
        facts = report.rounded(facts)
        test[[DAY, TARGET]].assign(probability=scored.probability).to_parquet(PREDICTIONS_FILE, index=False)
        write_json(METRICS_FILE, {"test": facts["test"], **facts["baselines"]})
        write_json(EVALUATION_FILE, facts)
        report.write_plots(scored, facts, lightgbm.Booster(model_file=BUNDLE_DIR / model.MODEL_FILE), settings)
        CARD_FILE.write_text(report.model_card(facts), encoding="utf-8")
        log.metrics(**facts["test"])
        for path in (METRICS_FILE, EVALUATION_FILE, CARD_FILE, report.PLOTS_DIR):
            log.artifact(path)


if __name__ == "__main__":
    run(main)
