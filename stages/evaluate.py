"""Stage evaluate: measure the model and its baselines on the test rows; write metrics, plots and the model card.

Features are read file by file; targets, probabilities and slices of the test rows are in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from app.interface import CATEGORIES, FEATURE_NAMES, FEATURES, NUMBERS, Lookups, without
from app.model import bundle as model
from app.problem_kit.features import Floats
from stages import interface, params
from stages.base.errors import DataInvalid, run
from stages.base.paths import (
    BUNDLE_DIR,
    EVALUATION_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    ROLLING_FILE,
    rounded,
    write_json,
)
from stages.evaluation import metrics, model_card, plots
from stages.evaluation.metrics import MetricSettings, Scored, describe
from stages.features import feature_files
from stages.features.feature_files import DAY, GROUP, KEY, OUT_DIR, TARGET, described, matrix, scenario_name
from stages.problem_kit.params import EvaluateParams
from stages.problem_kit.rows import day_of, month_names, months_of
from stages.tracking import mlflow_runs
from stages.training.boosting import Source

CARD_FILE = Path("reports/model_card.md")
MODEL, LOGISTIC = "model", "logistic"
BASELINE_ROWS = 500_000
"""Training rows of the logistic regression, at most: it needs them all in memory."""


def logistic_regression(source: Source, seed: int) -> Pipeline:
    """Return a logistic regression on the same features, of at most BASELINE_ROWS; medians replace missing values."""
    rows = np.ones(len(source.facts), dtype=bool)
    if len(rows) > BASELINE_ROWS:
        rows = np.isin(
            np.arange(len(rows)), np.random.default_rng(seed).choice(len(rows), BASELINE_ROWS, replace=False)
        )
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
    frame = pd.DataFrame(source.features(rows), columns=list(FEATURE_NAMES))
    return regression.fit(frame, source.target[rows])


class Predictions(NamedTuple):
    """The predictions of the test rows."""

    facts: pd.DataFrame
    """Day, group, target and key of each row."""
    probability: dict[str, Floats]
    """By the model (MODEL), the logistic regression (LOGISTIC), and by the model in each scenario."""
    slices: dict[str, npt.NDArray[np.bool_]]

    def scored(self, name: str) -> Scored:
        """Return predictions with target and group."""
        return score(self.facts, self.probability[name])


def predict(bundle: model.Bundle, regression: Pipeline, scenarios: list[str]) -> Predictions:
    """Predict the test rows file by file: as they are, in each scenario, and without each group of features."""
    facts, slices_, found = [], [], []
    groups = dict.fromkeys(feature.group for feature in FEATURES if feature.group)
    names = [MODEL, LOGISTIC, *(f"without {group}" for group in groups), *scenarios]
    if len(set(names)) < len(names):
        raise DataInvalid(
            f"the scenarios {', '.join(scenarios)} must not be named like {', '.join(names[: -len(scenarios)])}."
        )
    for path in feature_files.files("test"):
        frame = pd.read_parquet(path)
        intact = matrix(frame)
        changed = {name: matrix(pd.read_parquet(OUT_DIR / scenario_name(name) / path.name)) for name in scenarios}
        changed |= {f"without {group}": without(group, intact) for group in groups}
        found.append(
            {
                MODEL: model.predict(bundle.booster, intact).round(9),
                LOGISTIC: regression.predict_proba(frame[list(FEATURE_NAMES)])[:, 1],
                **{name: model.predict(bundle.booster, features) for name, features in changed.items()},
            }
        )
        slices_.append(interface.slices(frame, bundle.lookups))
        facts.append(frame[[DAY, GROUP, TARGET, KEY]])
    together = pd.concat(facts, ignore_index=True)
    sizes = [len(part) for part in facts]
    return Predictions(together, _joined(found, sizes), _joined(slices_, sizes) | months(together))


def _joined(parts: list[dict[str, npt.NDArray[Any]]], sizes: list[int]) -> dict[str, npt.NDArray[Any]]:
    """Return arrays by name, of all files; a slice that a file lacks has none of its rows."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: np.concatenate([part.get(name, np.zeros(n, bool)) for part, n in zip(parts, sizes, strict=True)])
        for name in names
    }


def slices(frame: pd.DataFrame, lookups: Lookups) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the row mask of each slice: those of the problem, and the months."""
    return interface.slices(frame, lookups) | months(frame)


def months(frame: pd.DataFrame) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the row mask of each month."""
    month = months_of(frame[DAY].to_numpy())
    return {f"month={name}": month == m for m, name in month_names(month).items()}


def score(frame: pd.DataFrame, probability: npt.ArrayLike) -> Scored:
    """Return the target and the group of feature rows with their probabilities."""
    return Scored(frame[TARGET].to_numpy(), np.asarray(probability), frame[GROUP].to_numpy())


def by_slice(scored: Scored, parts: dict[str, npt.NDArray[np.bool_]], settings: MetricSettings) -> dict[str, Any]:
    """Return the metrics of each slice that has rows."""
    return {name: describe(scored.where(rows), settings) for name, rows in parts.items() if rows.any()}


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
            f"{OUT_DIR}/train. `dvc repro evaluate` makes both anew."
        )


def evaluate(train: pd.DataFrame, test: Predictions, bundle: model.Bundle, p: EvaluateParams) -> dict[str, Any]:
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
        bundle = model.load(BUNDLE_DIR / model.MODEL_FILE, BUNDLE_DIR / model.MANIFEST_FILE)
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
        booster = lightgbm.Booster(model_file=BUNDLE_DIR / model.MODEL_FILE)
        plots.write_plots(test.scored(MODEL), facts, booster, settings)
        CARD_FILE.write_text(model_card.model_card(facts), encoding="utf-8")
        log.metrics(**facts["test"])
        for path in (METRICS_FILE, EVALUATION_FILE, CARD_FILE, plots.PLOTS_DIR):
            log.artifact(path)


if __name__ == "__main__":
    run(main)
