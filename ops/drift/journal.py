"""The last window of the journal, as frames."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
from sqlalchemy import Engine, Select, func, select

from app.features import CATEGORICAL, FEATURES
from app.journal import outcomes, predictions
from ops.drift.reference import SCORE
from stages.featurize import TARGET


def read(engine: Engine, version: str, hours: float, rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the newest predictions of a version, and the newest ones whose outcome is known.

    At most `rows` of each, none older than `hours`. The first frame has the features and the score, the second one
    score and target.
    """
    since = datetime.now(UTC) - timedelta(hours=hours)

    def newest(query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
        of_version = query.where(predictions.c.model_version == version, predictions.c.created_at >= since)
        return of_version.order_by(predictions.c.created_at.desc()).limit(rows)

    joined = predictions.join(outcomes, predictions.c.id == outcomes.c.prediction_id)
    with engine.connect() as connection:
        scored = connection.execute(newest(select(predictions.c.features, predictions.c.probability))).all()
        known = connection.execute(
            newest(select(predictions.c.probability, outcomes.c.not_on_time).select_from(joined))
        ).all()
    features = pd.DataFrame([row[0] for row in scored], columns=list(FEATURES))
    numbers = [name for name in FEATURES if name not in CATEGORICAL]
    features[numbers] = features[numbers].astype(float)
    window = features.assign(**{SCORE: [row[1] for row in scored]})
    return window, pd.DataFrame([tuple(row) for row in known], columns=[SCORE, TARGET]).astype(float)


def outcomes_since(engine: Engine, moment: float) -> int:
    """Return how many outcomes were received since a moment (seconds since 1970)."""
    since = datetime.fromtimestamp(moment, UTC)
    with engine.connect() as connection:
        return int(connection.scalar(select(func.count()).where(outcomes.c.received_at >= since)) or 0)
