"""The metrics, computed for many weightings of the days at once: estimate and bootstrap are one code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.features import Floats

HIGHER_IS_BETTER = {
    "roc_auc": True,
    "pr_auc": True,
    "log_loss": False,
    "brier": False,
    "ece": False,
    "top_precision": True,
}
"""All metrics, with their direction: the one list that reports and gates share."""

Weights = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]

CHUNK_CELLS = 4_000_000
CLIP = 1e-15


@dataclass(frozen=True)
class Scored:
    """Outcomes (0 or 1), probabilities, and the days by which rows are resampled; each of shape (n,)."""

    target: npt.NDArray[np.int8]
    probability: Floats
    day: npt.NDArray[np.integer[Any]]

    def where(self, rows: npt.NDArray[np.bool_]) -> Scored:
        """Return these rows."""
        return Scored(self.target[rows], self.probability[rows], self.day[rows])


@dataclass(frozen=True)
class Settings:
    """How calibration error and the riskiest part are measured."""

    ece_bins: int
    riskiest_share: float


def resample_days(days: npt.NDArray[np.integer[Any]], replicates: int, seed: int) -> npt.NDArray[np.int64]:
    """Return how often each distinct day is drawn in each bootstrap replicate, shape (replicates, days)."""
    count = len(np.unique(days))
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=replicates)


def measure(scored: Scored, settings: Settings) -> dict[str, float]:
    """Return each metric on the rows as they are."""
    one = np.ones((1, len(np.unique(scored.day))), dtype=np.int64)
    return {name: float(values[0]) for name, values in measure_weighted(scored, one, settings).items()}


def measure_weighted(scored: Scored, counts: npt.NDArray[np.int64], settings: Settings) -> dict[str, Floats]:
    """Return each metric for each row of `counts`, the weights of the distinct days in ascending order, (B, days).

    ROC AUC counts ties as half; PR AUC is the average precision; ECE has bins of equal width.
    """
    return (
        day_means(scored, counts) | {"ece": _ece(scored, counts, settings.ece_bins)} | _ranked(scored, counts, settings)
    )


def pointwise(scored: Scored) -> dict[str, Floats]:
    """Return log loss and Brier score of each row, shape (n,)."""
    p = np.clip(scored.probability, CLIP, 1 - CLIP)
    return {
        "log_loss": -np.where(scored.target == 1, np.log(p), np.log1p(-p)),
        "brier": (scored.target - scored.probability) ** 2,
    }


def day_means(scored: Scored, counts: npt.NDArray[np.int64]) -> dict[str, Floats]:
    """Return log loss and Brier score by replicate, from sums by day."""
    _, day = np.unique(scored.day, return_inverse=True)
    rows = counts @ np.bincount(day)
    return {name: counts @ np.bincount(day, weights=values) / rows for name, values in pointwise(scored).items()}


def _ece(scored: Scored, counts: npt.NDArray[np.int64], bins: int) -> Floats:
    days, day = np.unique(scored.day, return_inverse=True)
    cell = day * bins + np.minimum((scored.probability * bins).astype(np.int64), bins - 1)
    gap = np.bincount(cell, weights=scored.target - scored.probability, minlength=len(days) * bins)
    return np.asarray(np.abs(counts @ gap.reshape(len(days), bins)).sum(axis=1) / (counts @ np.bincount(day)))


def _ranked(scored: Scored, counts: npt.NDArray[np.int64], settings: Settings) -> dict[str, Floats]:
    """Return the metrics that depend on the order of the scores."""
    order = np.argsort(-scored.probability, kind="stable")
    day = np.unique(scored.day, return_inverse=True)[1][order]
    positive = scored.target[order] == 1
    last_of_tie = np.append(np.diff(scored.probability[order]) != 0, True)
    parts = [
        _ranked_chunk(part[:, day], positive, last_of_tie, settings.riskiest_share)
        for part in _chunks(counts.astype(np.int32), len(day))
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in ("roc_auc", "pr_auc", "top_precision")}


def _chunks(counts: npt.NDArray[np.int32], rows: int) -> Iterator[npt.NDArray[np.int32]]:
    size = max(1, CHUNK_CELLS // rows)
    for start in range(0, len(counts), size):
        yield counts[start : start + size]


def _ranked_chunk(weight: Weights, positive: Flags, last_of_tie: Flags, share: float) -> dict[str, Floats]:
    """Return ROC AUC, average precision and precision of the riskiest share; weights (B, n), riskiest row first."""
    seen = np.cumsum(weight, axis=1, dtype=np.int32)
    hits = np.cumsum(weight * positive, axis=1, dtype=np.int32)
    cut = (seen < np.ceil(share * seen[:, -1:])).sum(axis=1, keepdims=True)
    top_precision = np.take_along_axis(hits, cut, axis=1) / np.take_along_axis(seen, cut, axis=1)
    true_positive = hits[:, last_of_tie].astype(np.float64)
    alerts = seen[:, last_of_tie].astype(np.float64)
    false_positive = alerts - true_positive
    gain = np.diff(true_positive, axis=1, prepend=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        area = (np.diff(false_positive, axis=1, prepend=0) * (true_positive - gain / 2)).sum(axis=1)
        precision = np.where(alerts > 0, true_positive / alerts, 0.0)
        return {
            "roc_auc": area / (true_positive[:, -1] * false_positive[:, -1]),
            "pr_auc": (gain * precision).sum(axis=1) / true_positive[:, -1],
            "top_precision": top_precision[:, 0],
        }


def interval(values: Floats) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % quantiles of bootstrap replicates."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
