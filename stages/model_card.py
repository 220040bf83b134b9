"""What people read of an evaluation: the tables behind `dvc plots`, and the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd

from stages.metrics import HIGHER_IS_BETTER, Scored, Settings

PLOTS_DIR = Path("reports/plots")
DECIMALS = 6
CURVE_POINTS = 200

METRIC_NAMES = {
    "roc_auc": "ROC AUC",
    "pr_auc": "PR AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "ECE",
    "top_precision": "precision in the riskiest part",
}


def rounded(value: Any) -> Any:
    """Return nested results with every float rounded: the last bits differ from one processor to the next."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, DECIMALS) if isinstance(value, float) else value


def curves(scored: Scored) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return ROC and precision-recall curves, thinned to `CURVE_POINTS` points."""
    order = np.argsort(-scored.probability, kind="stable")
    hits = np.cumsum(scored.target[order], dtype=np.int64)
    at = np.unique(np.linspace(0, len(order) - 1, CURVE_POINTS).astype(np.int64))
    alerts, total = at + 1, hits[-1]
    roc = {"false_positive_rate": (alerts - hits[at]) / (len(order) - total), "true_positive_rate": hits[at] / total}
    return pd.DataFrame(roc), pd.DataFrame({"recall": hits[at] / total, "precision": hits[at] / alerts})


def calibration(scored: Scored, bins: int) -> pd.DataFrame:
    """Return mean probability and observed rate by bin of equal width."""
    cell = np.minimum((scored.probability * bins).astype(np.int64), bins - 1)
    frame = pd.DataFrame({"bin": cell, "predicted": scored.probability, "observed": scored.target})
    by_bin = frame.groupby("bin").agg(
        predicted=("predicted", "mean"), observed=("observed", "mean"), rows=("bin", "size")
    )
    return by_bin.reset_index(drop=True)


def importance(booster: lightgbm.Booster) -> pd.DataFrame:
    """Return each feature's share of the total gain, largest first."""
    gain = booster.feature_importance("gain")
    table = pd.DataFrame({"feature": booster.feature_name(), "gain_share": gain / gain.sum()})
    return table.sort_values(["gain_share", "feature"], ascending=[False, True])


def write_plots(scored: Scored, facts: dict[str, Any], booster: lightgbm.Booster, settings: Settings) -> None:
    """Write the tables that dvc.yaml plots."""
    roc, precision_recall = curves(scored)
    months = [{"month": month, **values} for month, values in facts["backtest"].items()]
    tables = {
        "roc": roc,
        "precision_recall": precision_recall,
        "calibration": calibration(scored, settings.ece_bins),
        "importance": importance(booster),
        "backtest": pd.DataFrame(months)[["month", "rate", "mean_probability", *HIGHER_IS_BETTER]],
    }
    PLOTS_DIR.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.round(DECIMALS).to_csv(PLOTS_DIR / f"{name}.csv", index=False)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _headline(facts: dict[str, Any]) -> str:
    rows = []
    for name, label in METRIC_NAMES.items():
        low, high = facts["intervals"][name]
        baselines = [f"{facts['baselines'][b][name]:.4f}" for b in ("logistic", "constant")]
        better = "higher" if HIGHER_IS_BETTER[name] else "lower"
        rows.append([label, f"**{facts['test'][name]:.4f}**", f"{low:.4f} to {high:.4f}", *baselines, better])
    return _table(["metric", "model", "95 % interval", "logistic regression", "constant", "better"], rows)


def _by(facts: dict[str, dict[str, Any]], label: str) -> str:
    rows = [
        [name, f"{v['rows']:,}", f"{v['rate']:.3f}", f"{v['mean_probability']:.3f}"]
        + [f"{v[metric]:.3f}" for metric in ("roc_auc", "pr_auc", "log_loss", "ece")]
        for name, v in facts.items()
        if "rate" in v
    ]
    return _table([label, "flights", "rate", "mean probability", "ROC AUC", "PR AUC", "log loss", "ECE"], rows)


def model_card(facts: dict[str, Any]) -> str:
    """Return the model card, every number in it taken from the evaluation."""
    threshold, small = facts["threshold"], [name for name, v in facts["slices"].items() if "rate" not in v]
    return f"""# Model card: flight-delay

Written by `dvc repro evaluate` from `reports/evaluation.json`; bundle `{facts["bundle_digest"][:16]}`.

**What it predicts.** The probability that a flight from EWR, JFK or LGA does not arrive on time: 15 minutes or more late,
cancelled or diverted, the definition of the US Department of Transportation. It is a gradient-boosted tree model (LightGBM) on the
schedule and on up to seven hours of weather at the origin.

**Data.** {facts["rows"]["train"]:,} flights of January to October 2013 to train on ({facts["rate"]["train"]:.1%} not on time),
{facts["rows"]["test"]:,} of November and December 2013 to test on ({facts["rate"]["test"]:.1%}). The test
months are not wholly unseen: docs/model.md says what was looked at while features were chosen.

## On the test months

{_headline(facts)}

Intervals: bootstrap over days, because flights of one day share their weather. An alert (probability of {threshold["value"]:.3f} or more)
is raised for {threshold["alert_share"]:.1%} of the flights, is right {threshold["precision"]:.1%} of the time and finds
{threshold["recall"]:.1%} of the flights that are not on time.

## By month

The months of the training period are predicted by models of the months before them, November and December by the final model.

{_by(facts["backtest"], "month")}

## When the weather is worse than observed

The weather that the model is tested with is what was observed in the hour of departure, which is a perfect forecast. With older
observations, or with none:

{_by(facts["weather"], "weather")}

## By slice

{_by(facts["slices"], "slice")}

Too few flights to measure: {", ".join(small) or "none"}.

## Limits

One year, three airports: no other season, airline or airport has been seen. The model knows nothing of the aircraft, of delays earlier
in the day or of the state of the network. A storm that the forecast misses is missed. It is not meant for decisions about people.
"""
