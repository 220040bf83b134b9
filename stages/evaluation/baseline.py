"""The baseline: a logistic regression on the features of the model.

It answers whether boosted trees are worth their cost; a model that is not better than it fails a floor.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from app.interface import CATEGORIES, FEATURE_NAMES, NUMBERS
from stages.training.boosting import Source

BASELINE_ROWS = 500_000
"""Training rows of the logistic regression, at most: it needs them all in memory."""


def logistic_regression(source: Source, seed: int) -> Pipeline:
    """Return a logistic regression on the same features, of at most BASELINE_ROWS; medians replace missing values."""
    rows = np.ones(len(source.facts), dtype=bool)
    if len(rows) > BASELINE_ROWS:
        rows = np.isin(
            np.arange(len(rows)), np.random.default_rng(seed).choice(len(rows), BASELINE_ROWS, replace=False)
        )
    columns = ColumnTransformer(
        [
            (
                "numbers",
                make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()),
                list(NUMBERS),
            ),
            ("categories", OneHotEncoder(handle_unknown="ignore"), list(CATEGORIES)),
        ]
    )
    regression = make_pipeline(columns, LogisticRegression(max_iter=300))
    frame = pd.DataFrame(source.features(rows), columns=list(FEATURE_NAMES))
    return regression.fit(frame, source.target[rows])
