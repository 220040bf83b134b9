"""The data of `dvc plots`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd

from stages.base.paths import DECIMALS
from stages.evaluation.metrics import HIGHER_IS_BETTER, MetricSettings, Scored

PLOTS_DIR = Path("reports/plots")
CURVE_POINTS = 200


def curves(scored: Scored) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return ROC and precision-recall curves, thinned to `CURVE_POINTS` points."""
    order = np.argsort(-scored.probability, kind="stable")
    hits = np.cumsum(scored.target[order], dtype=np.int64)
    at = np.unique(np.linspace(0, len(order) - 1, CURVE_POINTS).astype(np.int64))
    alerts, total = at + 1, hits[-1]
    roc = {"false_positive_rate": (alerts - hits[at]) / (len(order) - total), "true_positive_rate": hits[at] / total}
    return pd.DataFrame(roc), pd.DataFrame({"recall": hits[at] / total, "precision": hits[at] / alerts})


def calibration(scored: Scored, bins: int) -> pd.DataFrame:
    """Return mean probability and observed rate by bin; bins have equal width."""
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


def write_plots(scored: Scored, facts: dict[str, Any], booster: lightgbm.Booster, settings: MetricSettings) -> None:
    """Write the CSV files that dvc.yaml plots."""
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
