"""The comparison of a window with the reference: numbers in, findings out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from app.interface import CATEGORIES, FEATURE_NAMES
from ops.monitoring.drift.reference import SCORE, Reference, psi
from stages.featurize import TARGET

EPSILON = 1e-15


@dataclass(frozen=True)
class Quality:
    """How good the predictions of the flights with an outcome were."""

    rows: int
    mean_probability: float
    observed_rate: float
    log_loss: float
    constant_log_loss: float
    """Of always predicting the observed rate."""

    @property
    def gap(self) -> float:
        """Mean probability minus the observed rate."""
        return self.mean_probability - self.observed_rate


@dataclass(frozen=True)
class Findings:
    """What a window looks like; `quality` is None while too few outcomes are known, a PSI is NaN when unknown."""

    rows: int
    score_psi: float
    feature_psi: dict[str, float]
    missing: dict[str, float]
    unseen: dict[str, float]
    quality: Quality | None


def compare(reference: Reference, window: pd.DataFrame, labelled: pd.DataFrame, whole: bool = True) -> Findings:
    """Compare predictions (features and score), and judge those with an outcome (score and target).

    The limits of PSI are those of whole weeks: a few days differ from the year by their weekday alone.
    """
    shares = window[list(FEATURE_NAMES)].isna().mean()
    return Findings(
        rows=len(window),
        score_psi=psi(reference.frame[SCORE], window[SCORE]) if whole else float("nan"),
        feature_psi={name: psi(reference.frame[name], window[name]) for name in FEATURE_NAMES} if whole else {},
        missing={name: float(shares[name]) for name in FEATURE_NAMES if name not in CATEGORIES},
        unseen={name: float(shares[name]) for name in CATEGORIES},
        quality=quality(labelled) if len(labelled) >= reference.policy.min_rows else None,
    )


def quality(labelled: pd.DataFrame) -> Quality:
    """Return the quality of scored flights whose outcome is known."""
    score, target = labelled[SCORE].to_numpy(dtype=float), labelled[TARGET].to_numpy(dtype=float)
    rate = float(target.mean())
    return Quality(
        len(labelled),
        float(score.mean()),
        rate,
        _log_loss(target, score),
        _log_loss(target, np.full(len(target), rate)),
    )


def _log_loss(
    target: np.ndarray[tuple[int], np.dtype[np.float64]], score: np.ndarray[tuple[int], np.dtype[np.float64]]
) -> float:
    sure = np.clip(score, EPSILON, 1 - EPSILON)
    return float(-np.mean(target * np.log(sure) + (1 - target) * np.log(1 - sure)))


def alarms(reference: Reference, found: Findings) -> list[str]:
    """Return what is beyond a threshold, by the name of its alert; Prometheus decides the same from the gauges."""
    policy = reference.policy
    over = [f"FeatureDrift {n} PSI {v:.2f}" for n, v in found.feature_psi.items() if v > reference.psi_limits[n]]
    over += [f"InputMissing {n} {v:.1%}" for n, v in found.missing.items() if v > reference.missing_limits[n]]
    over += [f"UnseenCategory {n} {v:.1%}" for n, v in found.unseen.items() if v > policy.unseen_share]
    if found.score_psi > reference.score_limit:
        over.append(f"ScoreDrift PSI {found.score_psi:.2f}")
    if found.quality:
        if not -policy.under_prediction <= found.quality.gap <= policy.over_prediction:
            over.append(f"CalibrationOff {found.quality.gap:+.3f}")
        if found.quality.log_loss > policy.log_loss:
            over.append(f"LiveLossHigh {found.quality.log_loss:.3f}")
    return over
