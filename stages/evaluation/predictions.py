"""Predictions of the test rows: by the model, the baseline, in each scenario and without each group of features."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.pipeline import Pipeline

from app.interface import FEATURE_NAMES, FEATURES, without
from app.model import bundles
from app.problem_kit.features import Floats
from stages import interface
from stages.base.errors import DataInvalid
from stages.base.paths import FEATURES_DIR
from stages.evaluation.metrics import Scored
from stages.evaluation.scores import months, score
from stages.features import feature_files
from stages.features.feature_files import DAY, GROUP, KEY, TARGET, matrix, scenario_name

MODEL, LOGISTIC = "model", "logistic"


class TestPredictions(NamedTuple):
    """The predictions of the test rows."""

    facts: pd.DataFrame
    """Day, group, target and key of each row."""
    probability: dict[str, Floats]
    """By the model (MODEL), the logistic regression (LOGISTIC), and by the model in each scenario."""
    slices: dict[str, npt.NDArray[np.bool_]]

    def scored(self, name: str) -> Scored:
        """Return predictions with target and group."""
        return score(self.facts, self.probability[name])


def predict(bundle: bundles.Bundle, regression: Pipeline, scenarios: list[str]) -> TestPredictions:
    """Predict the test rows file by file: unchanged, in each scenario, and without each group of features."""
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
        changed = {name: matrix(pd.read_parquet(FEATURES_DIR / scenario_name(name) / path.name)) for name in scenarios}
        changed |= {f"without {group}": without(group, intact) for group in groups}
        found.append(
            {
                MODEL: bundles.predict(bundle.booster, intact).round(9),
                LOGISTIC: regression.predict_proba(frame[list(FEATURE_NAMES)])[:, 1],
                **{name: bundles.predict(bundle.booster, features) for name, features in changed.items()},
            }
        )
        slices_.append(interface.slices(frame, bundle.lookups))
        facts.append(frame[[DAY, GROUP, TARGET, KEY]])
    together = pd.concat(facts, ignore_index=True)
    sizes = [len(part) for part in facts]
    return TestPredictions(together, _joined(found, sizes), _joined(slices_, sizes) | months(together))


def _joined(parts: list[dict[str, npt.NDArray[Any]]], sizes: list[int]) -> dict[str, npt.NDArray[Any]]:
    """Return arrays by name, of all files; a slice that a file lacks has none of its rows."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: np.concatenate([part.get(name, np.zeros(n, bool)) for part, n in zip(parts, sizes, strict=True)])
        for name in names
    }
