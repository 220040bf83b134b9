"""The metrics, computed for many weightings of the groups at once: estimates and bootstrap replicates alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.problem_kit.features import Floats

HIGHER_IS_BETTER = {
    "roc_auc": True,
    "pr_auc": True,
    "log_loss": False,
    "brier": False,
    "ece": False,
    "top_precision": True,
}
"""All metrics and their direction, for reports and gates."""

Counts = npt.NDArray[np.int64]

CHUNK_CELLS = 100_000
"""Cells of the arrays of replicates by rows that are in memory at once: they fit into a processor's cache."""
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
class MetricSettings:
    """Parameters of ECE and of the precision in the riskiest part."""

    ece_bins: int
    riskiest_share: float


MIN_ROWS = 200
"""Minimum number of rows for metrics."""


def resample_groups(groups: npt.NDArray[np.integer[Any]], replicates: int, seed: int) -> npt.NDArray[np.int64]:
    """Return how often each distinct group is drawn in each bootstrap replicate, shape (replicates, groups)."""
    count = len(np.unique(groups))
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=replicates)


def measure(scored: Scored, settings: MetricSettings) -> dict[str, float]:
    """Return each metric, with equal weights."""
    one = np.ones((1, len(np.unique(scored.group))), dtype=np.int64)
    return {name: float(values[0]) for name, values in measure_weighted(scored, one, settings).items()}


def describe(scored: Scored, settings: MetricSettings) -> dict[str, Any]:
    """Return rows, positive rate, mean probability and metrics; only the rows if they are few or of a single class."""
    facts: dict[str, Any] = {"rows": len(scored.target)}
    if len(scored.target) >= MIN_ROWS and 0 < scored.target.mean() < 1:
        facts |= {"rate": float(scored.target.mean()), "mean_probability": float(scored.probability.mean())}
        facts |= measure(scored, settings)
    return facts


def measure_weighted(scored: Scored, counts: npt.NDArray[np.int64], settings: MetricSettings) -> dict[str, Floats]:
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
    return np.concatenate([_roc_auc(seen[:, ends], hits[:, ends]) for seen, hits, ends in _in_order(scored, counts)])


def _ranked(scored: Scored, counts: npt.NDArray[np.int64], settings: MetricSettings) -> dict[str, Floats]:
    """Return the metrics that depend on the order of the scores."""
    parts = [
        (
            _roc_auc(seen[:, ends], hits[:, ends]),
            _average_precision(seen[:, ends], hits[:, ends]),
            _top_precision(seen, hits, settings.riskiest_share),
        )
        for seen, hits, ends in _in_order(scored, counts)
    ]
    names = ("roc_auc", "pr_auc", "top_precision")
    return {name: np.concatenate(values) for name, values in zip(names, zip(*parts, strict=True), strict=True)}


def _in_order(scored: Scored, counts: npt.NDArray[np.int64]) -> Iterator[tuple[Counts, Counts, npt.NDArray[np.intp]]]:
    """Yield rows and positives by replicate down to each row, riskiest first, shape (b, n), and the ends of ties.

    There are so few replicates at once that each array has about CHUNK_CELLS cells.
    """
    order = np.argsort(-scored.probability, kind="stable")
    group = np.unique(scored.group, return_inverse=True)[1][order]
    positive = scored.target[order] == 1
    ends = np.flatnonzero(np.append(np.diff(scored.probability[order]) != 0, True))
    size = max(1, CHUNK_CELLS // len(order))
    for start in range(0, len(counts), size):
        weights = counts[start : start + size][:, group]
        yield weights.cumsum(axis=1), (weights * positive).cumsum(axis=1), ends


def _roc_auc(seen: Counts, hits: Counts) -> Floats:
    """Return ROC AUC: the share of the pairs of a positive and a negative that are in the right order, ties as half."""
    negatives = seen - hits
    below = negatives[:, -1:] - (negatives - np.diff(negatives, axis=1, prepend=0) / 2)
    right = (np.diff(hits, axis=1, prepend=0) * below).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(right / (hits[:, -1] * negatives[:, -1]))


def _average_precision(seen: Counts, hits: Counts) -> Floats:
    with np.errstate(invalid="ignore"):
        precision = np.where(seen > 0, hits / seen, 0.0)
        return np.asarray((np.diff(hits, axis=1, prepend=0) * precision).sum(axis=1) / hits[:, -1])


def _top_precision(seen: Counts, hits: Counts, share: float) -> Floats:
    """Return the precision down to the first row at which `share` of the rows is reached."""
    wanted = np.ceil(share * seen[:, -1:])
    last = (seen < wanted).sum(axis=1)
    rows = np.arange(len(seen))
    return np.asarray(hits[rows, last] / seen[rows, last])


def interval(values: Floats) -> tuple[float, float]:
    """Return the 2.5 and 97.5 % quantiles of bootstrap replicates."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
