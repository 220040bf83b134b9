"""The comparison of a window with the reference, and the alarms that follow from it."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from app.interface import CATEGORIES, FEATURE_NAMES
from ops.monitoring.drift.reference import SCORE, Reference, psi
from stages.evaluation.metrics import Scored, pointwise
from stages.features.feature_files import TARGET


class AlarmKind(StrEnum):
    """What can be beyond a threshold, by the name of its alert in Prometheus."""

    FEATURE_DRIFT = "FeatureDrift"
    INPUT_MISSING = "InputMissing"
    UNSEEN_CATEGORY = "UnseenCategory"
    SCORE_DRIFT = "ScoreDrift"
    CALIBRATION_OFF = "CalibrationOff"
    LIVE_LOSS_HIGH = "LiveLossHigh"


@dataclass(frozen=True)
class Alarm:
    """A value that is beyond its threshold; `feature` is empty for what concerns all of them."""

    kind: AlarmKind
    value: float
    feature: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.kind, self.feature, f"{self.value:.3g}")))


@dataclass(frozen=True)
class Quality:
    """Quality of the predictions with a known outcome."""

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
    """Measurements of a window; `quality` is None while too few outcomes are known, a PSI is NaN when unknown."""

    rows: int
    score_psi: float
    feature_psi: dict[str, float]
    missing: dict[str, float]
    unseen: dict[str, float]
    quality: Quality | None


def compare_window(reference: Reference, window: pd.DataFrame, labelled: pd.DataFrame, whole: bool = True) -> Findings:
    """Compare predictions (features and score), and measure the quality of those with an outcome (score and target).

    The PSI limits hold for whole weeks: a few days differ from the reference by their weekdays alone.
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
    """Return the quality of predictions whose outcome is known."""
    score, target = labelled[SCORE].to_numpy(dtype=float), labelled[TARGET].to_numpy(dtype=np.int8)
    mean, rate = float(score.mean()), float(target.mean())
    predictions = (score, np.full(len(target), rate))
    losses = (float(pointwise(Scored(target, p, target))["log_loss"].mean()) for p in predictions)
    return Quality(len(labelled), mean, rate, *losses)


def alarms(reference: Reference, found: Findings) -> list[Alarm]:
    """Return the values beyond a threshold; Prometheus derives the same alerts from the gauges."""
    policy = reference.policy
    limits = [
        (AlarmKind.FEATURE_DRIFT, found.feature_psi, reference.psi_limits),
        (AlarmKind.INPUT_MISSING, found.missing, reference.missing_limits),
        (AlarmKind.UNSEEN_CATEGORY, found.unseen, dict.fromkeys(found.unseen, policy.unseen_share)),
        (AlarmKind.SCORE_DRIFT, {"": found.score_psi}, {"": reference.score_limit}),
    ]
    over = [Alarm(kind, v, name) for kind, values, most in limits for name, v in values.items() if v > most[name]]
    if found.quality and not -policy.under_prediction <= found.quality.gap <= policy.over_prediction:
        over.append(Alarm(AlarmKind.CALIBRATION_OFF, found.quality.gap))
    if found.quality and found.quality.log_loss > policy.log_loss:
        over.append(Alarm(AlarmKind.LIVE_LOSS_HIGH, found.quality.log_loss))
    return over
