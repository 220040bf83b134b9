"""Rolling-origin folds: months predicted by models of all months before them, and the threshold chosen on these.

Random folds would train on days after those that they predict, as the service never can. The threshold is chosen on
the folds' predictions, because the test months must not choose anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import lightgbm
import numpy as np
import pandas as pd

from app.model import bundles
from app.problem_kit.features import Floats
from stages.base.errors import DataInvalid
from stages.features.feature_files import DAY, TARGET
from stages.problem_kit.params import TrainParams
from stages.problem_kit.rows import months_of
from stages.training.boosting import Source, Targets, fit, loss_by_round


def folds(source: Source, p: TrainParams) -> list[int]:
    """Return the months of the folds, since January 1970."""
    return p.folds([int(month) for month in np.unique(months_of(source.facts[DAY].to_numpy()))])


def rolling_origin(
    source: Source,
    p: TrainParams,
    months: Sequence[int] | None = None,
    boosters: Iterable[lightgbm.Booster] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predict the month of each fold (default: `folds`) by a model trained on all earlier months.

    The models are trained here, one after the other, or given as `boosters`.

    Returns the predictions (day, group, target, key, probability) and the loss on the fold's month by round.
    """
    month = months_of(source.facts[DAY].to_numpy())
    months = folds(source, p) if months is None else months
    parts, losses = [], {}
    for fold, booster in zip(months, boosters or _fold_boosters(source, p, months), strict=True):
        now = month == fold
        features = source.features(now)
        probability = bundles.predict(booster, features)
        parts.append(source.facts[now].assign(probability=probability.round(9), row=np.flatnonzero(now)))
        losses[fold] = loss_by_round(booster, features, source.target[now])
    return pd.concat(parts, ignore_index=True), pd.DataFrame(losses)


def _fold_boosters(source: Source, p: TrainParams, months: Sequence[int]) -> Iterator[lightgbm.Booster]:
    month = months_of(source.facts[DAY].to_numpy())
    return (fit(source, p, month < fold, label=fold_label(fold)) for fold in months)


def fold_label(fold: int) -> str:
    """Return the name of a fold in messages."""
    return f"fold of month {fold % 12 + 1}"


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


def threshold_of(rolling: pd.DataFrame, p: TrainParams) -> float:
    """Return the threshold by the rule in params.yaml."""
    target, probability = rolling[TARGET].to_numpy(), rolling["probability"].to_numpy()
    return choose_threshold(target, probability, p.threshold_rule, p.threshold_value)
