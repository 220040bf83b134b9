"""The metrics, computed for many weightings of the groups at once: estimates and bootstrap replicates alike."""

from __future__ import annotations

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
"""All metrics and their direction, for reports and gates."""

Counts = npt.NDArray[np.int32]

CHUNK_CELLS = 4_000_000
CLIP = 1e-15


@dataclass(frozen=True)
class Scored:
    """Targets (0 or 1), probabilities, and resampling groups, each of shape (n,)."""

    target: npt.NDArray[np.int8]
    probability: Floats
    group: npt.NDArray[np.integer[Any]]

    def where(self, rows: npt.NDArray[np.bool_]) -> Scored:
        """Return the masked rows."""
        return Scored(self.target[rows], self.probability[rows], self.group[rows])


@dataclass(frozen=True)
class Settings:
    """Parameters of ECE and of the precision in the riskiest part."""

    ece_bins: int
    riskiest_share: float


MIN_ROWS = 200
"""Minimum number of rows for metrics."""


def resample_groups(groups: npt.NDArray[np.integer[Any]], replicates: int, seed: int) -> npt.NDArray[np.int64]:
    """Return how often each distinct group is drawn in each bootstrap replicate, shape (replicates, groups)."""
    count = len(np.unique(groups))
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=replicates)


def measure(scored: Scored, settings: Settings) -> dict[str, float]:
    """Return each metric, with equal weights."""
    one = np.ones((1, len(np.unique(scored.group))), dtype=np.int64)
    return {name: float(values[0]) for name, values in measure_weighted(scored, one, settings).items()}


def describe(scored: Scored, settings: Settings) -> dict[str, Any]:
    """Return rows, positive rate, mean probability and metrics; only the rows if they are few or of a single class."""
    facts: dict[str, Any] = {"rows": len(scored.target)}
    if len(scored.target) >= MIN_ROWS and 0 < scored.target.mean() < 1:
        facts |= {"rate": float(scored.target.mean()), "mean_probability": float(scored.probability.mean())}
        facts |= measure(scored, settings)
    return facts


def measure_weighted(scored: Scored, counts: npt.NDArray[np.int64], settings: Settings) -> dict[str, Floats]:
    """Return each metric for each row of `counts`, the weights of the distinct groups in ascending order, (B, groups).

    ROC AUC counts ties as half; PR AUC is the average precision; ECE has bins of equal width.
    """
    return (
        group_means(scored, counts)
        | {"ece": _ece(scored, counts, settings.ece_bins)}
        | _ranked(scored, counts, settings)
    )


def pointwise(scored: Scored) -> dict[str, Floats]:
    """Return log loss and Brier score of each row, shape (n,)."""
    p = np.clip(scored.probability, CLIP, 1 - CLIP)
    return {
        "log_loss": -np.where(scored.target == 1, np.log(p), np.log1p(-p)),
        "brier": (scored.target - scored.probability) ** 2,
    }


def group_means(scored: Scored, counts: npt.NDArray[np.int64]) -> dict[str, Floats]:
    """Return log loss and Brier score by replicate, each of shape (B,)."""
    _, day = np.unique(scored.group, return_inverse=True)
    rows = counts @ np.bincount(day)
    return {name: counts @ np.bincount(day, weights=values) / rows for name, values in pointwise(scored).items()}


def _ece(scored: Scored, counts: npt.NDArray[np.int64], bins: int) -> Floats:
    days, day = np.unique(scored.group, return_inverse=True)
    cell = day * bins + np.minimum((scored.probability * bins).astype(np.int64), bins - 1)
    gap = np.bincount(cell, weights=scored.target - scored.probability, minlength=len(days) * bins)
    return np.asarray(np.abs(counts @ gap.reshape(len(days), bins)).sum(axis=1) / (counts @ np.bincount(day)))


def roc_auc(scored: Scored, counts: npt.NDArray[np.int64]) -> Floats:
    """Return ROC AUC by replicate, shape (B,); NaN if the drawn rows have a single class."""
    weights, seen, hits, last_of_tie = _in_order(scored, counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _roc_auc(weights, seen[:, last_of_tie], hits[:, last_of_tie])


def _ranked(scored: Scored, counts: npt.NDArray[np.int64], settings: Settings) -> dict[str, Floats]:
    """Return the metrics that depend on the order of the scores."""
    weights, seen, hits, last_of_tie = _in_order(scored, counts)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "roc_auc": _roc_auc(weights, seen[:, last_of_tie], hits[:, last_of_tie]),
            "pr_auc": _average_precision(weights, seen[:, last_of_tie], hits[:, last_of_tie]),
            "top_precision": _top_precision(weights, seen, hits, settings.riskiest_share),
        }


def _in_order(scored: Scored, counts: npt.NDArray[np.int64]) -> tuple[Floats, Counts, Counts, npt.NDArray[np.intp]]:
    """Return weights of days, rows and positives seen by day down to each row, riskiest first, and the ends of ties.

    Counts down to a row are weighted sums of counts by day, so a replicate costs a matrix product instead of a sort.
    Days with the same weight in every replicate are merged.
    """
    weights, merged = np.unique(counts, axis=1, return_inverse=True)
    order = np.argsort(-scored.probability, kind="stable")
    day = merged.ravel()[np.unique(scored.group, return_inverse=True)[1][order]]
    positive = scored.target[order] == 1
    rows = np.arange(len(day))
    seen, hits = (np.zeros((weights.shape[1], len(day)), dtype=np.int32) for _ in range(2))
    seen[day, rows], hits[day, rows] = 1, positive
    seen, hits = (part.cumsum(axis=1, dtype=np.int32) for part in (seen, hits))
    last_of_tie = np.flatnonzero(np.append(np.diff(scored.probability[order]) != 0, True))
    return weights.astype(np.float64), seen, hits, last_of_tie  # counts stay far below 2^53


def _roc_auc(weights: Floats, seen: Counts, hits: Counts) -> Floats:
    """Return ROC AUC from the pairs of a positive of one day and a negative of another that are in the right order."""
    gain = np.diff(hits, axis=1, prepend=0).astype(np.float64)
    negatives = seen - hits
    below = negatives[:, -1:] - (negatives - np.diff(negatives, axis=1, prepend=0) / 2)
    pairs = gain @ below.T
    total = (weights @ hits[:, -1]) * (weights @ negatives[:, -1])
    return np.asarray(((weights @ pairs) * weights).sum(axis=1) / total)


def _average_precision(weights: Floats, seen: Counts, hits: Counts) -> Floats:
    found = np.flatnonzero(np.diff(hits.sum(axis=0), prepend=0))  # precision is summed at positives only
    total, before = np.zeros(len(weights)), np.zeros((len(weights), 1))
    size = max(1, CHUNK_CELLS // len(weights))
    for start in range(0, len(found), size):
        columns = found[start : start + size]
        true_positive = weights @ hits[:, columns]
        alerts = weights @ seen[:, columns]
        gain = np.diff(true_positive, axis=1, prepend=before)
        total += (gain * np.where(alerts > 0, true_positive / alerts, 0.0)).sum(axis=1)
        before = true_positive[:, -1:]
    return np.asarray(total / (weights @ hits[:, -1]))


def _top_precision(weights: Floats, seen: Counts, hits: Counts, share: float) -> Floats:
    """Return the precision down to the first row at which `share` of the rows is reached, found by bisection."""
    wanted = np.ceil(share * (weights @ seen[:, -1]))
    low, high = np.zeros(len(weights), dtype=np.int64), np.full(len(weights), seen.shape[1] - 1)
    while np.any(low < high):
        middle = (low + high) // 2
        enough = (weights * seen[:, middle].T).sum(axis=1) >= wanted
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    return np.asarray((weights * hits[:, low].T).sum(axis=1) / (weights * seen[:, low].T).sum(axis=1))


def interval(values: Floats) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % quantiles of bootstrap replicates."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
