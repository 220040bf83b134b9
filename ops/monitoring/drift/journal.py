"""The last window of the journal, as frames."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
from sqlalchemy import Engine, Select, func, select

from app.interface import CATEGORIES, FEATURE_NAMES
from app.journal.database import outcomes, predictions, reading
from ops.monitoring.drift.reference import SCORE
from stages.frames import TARGET

ID_RANDOM = 13
"""Where the random part of an id begins, counted from 1; before it is the time."""
WHOLE = 0.8


@dataclass(frozen=True)
class Window:
    """The data of a run."""

    predictions: pd.DataFrame
    """Features and score."""
    known: pd.DataFrame
    """Score and target of those whose outcome is known."""
    whole: bool
    """Whether predictions reach back about as far as the window does."""


def read(engine: Engine, version: str, hours: float, rows: int, registered: float = 0) -> Window:
    """Return what a version predicted in the last hours, at most `rows`, drawn from all of that time.

    An id ends in random digits (app/model/prediction.py): in their order, the first rows are a sample.
    Rows from before the version was `registered` (seconds since 1970) are of another registry, and not read.
    """
    now = datetime.now(UTC)
    since = now - timedelta(hours=hours)
    times = predictions.c.created_at.between(max(since, datetime.fromtimestamp(registered, UTC)), now)

    def sample(query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
        of_version = query.where(predictions.c.model_version == version, times)
        return of_version.order_by(func.substr(predictions.c.id, ID_RANDOM)).limit(rows)

    joined = predictions.join(outcomes, predictions.c.id == outcomes.c.prediction_id)
    columns = predictions.c.created_at, predictions.c.probability
    with reading(engine) as connection:
        scored = connection.execute(sample(select(*columns, predictions.c.features))).all()
        known = connection.execute(sample(select(*columns, outcomes.c.positive).select_from(joined))).all()
    scored, known = sorted(scored, key=lambda row: row[0]), sorted(known, key=lambda row: row[0])
    features = pd.DataFrame([row[2] for row in scored], columns=list(FEATURE_NAMES))
    numbers = [name for name in FEATURE_NAMES if name not in CATEGORIES]
    features[numbers] = features[numbers].astype(float)
    return Window(
        features.assign(**{SCORE: [row[1] for row in scored]}),
        pd.DataFrame([tuple(row[1:]) for row in known], columns=[SCORE, TARGET]).astype(float),
        bool(scored) and now - scored[0][0] >= WHOLE * (now - since),
    )


def outcomes_since(engine: Engine, moment: float) -> int:
    """Return how many outcomes were received since a moment (seconds since 1970)."""
    since = datetime.fromtimestamp(moment, UTC)
    with reading(engine) as connection:
        return int(connection.scalar(select(func.count()).where(outcomes.c.received_at >= since)) or 0)
