"""Metrics of predictions: by slice, by month, with confidence intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from app.interface import Lookups
from stages import interface
from stages.evaluation import metrics
from stages.evaluation.metrics import MetricSettings, Scored, describe
from stages.features.feature_files import DAY, GROUP, TARGET
from stages.problem_kit.params import EvaluateParams
from stages.problem_kit.rows import month_names, months_of


def slices(frame: pd.DataFrame, lookups: Lookups) -> dict[str, npt.NDArray[np.bool_]]:
    """Return the row mask of each slice: the slices of the problem, and the months."""
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
