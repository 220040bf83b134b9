"""The last window of the journal, as frames."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import nsmallest
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sqlalchemy import Connection, Engine, func, select

from app.interface import CATEGORIES, FEATURE_NAMES
from app.journal.blocks import earliest, features_of, holding, ids_of
from app.journal.database import reading
from app.journal.tables import blocks, id_at, layouts, outcomes
from ops.monitoring.drift.reference import SCORE
from stages.features.feature_files import TARGET

ID_RANDOM = 12
"""Where the random part of an id begins; before it is the time."""
PAGE = 200
"""Blocks that are read at once."""
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


class JournalRow(NamedTuple):
    """A prediction, and its outcome where one is known."""

    random: str
    id: str
    score: float
    positive: bool | None


def read_window(engine: Engine, version: str, hours: float, rows: int, registered: float = 0) -> Window:
    """Return the predictions of a version in the last hours, a sample of at most `rows` of them.

    An id ends in random digits (app/model/prediction.py): in their order, the first rows are a sample.
    Rows from before the version was `registered` (seconds since 1970) are of another registry, and not read.
    """
    now = datetime.now(UTC)
    since = now - timedelta(hours=hours)
    first, last = id_at(max(since, datetime.fromtimestamp(registered, UTC))), id_at(now)
    scored: list[JournalRow] = []
    known: list[JournalRow] = []
    with reading(engine) as connection:
        for page in _pages(connection, version, first, last):
            scored = _sample([*scored, *page], rows)
            known = _sample([*known, *(each for each in page if each.positive is not None)], rows)
        scored, known = (sorted(nsmallest(rows, some), key=lambda each: each.id) for some in (scored, known))
        features = _features(connection, [each.id for each in scored])
    return Window(
        features.assign(**{SCORE: [each.score for each in scored]}),
        pd.DataFrame([each[2:] for each in known], columns=[SCORE, TARGET]).astype(float),
        bool(scored) and scored[0].id < id_at(now - WHOLE * (now - since)),
    )


def _sample(some: list[JournalRow], rows: int) -> list[JournalRow]:
    """Return at least those that belong to the sample; sorting pays when there are several times as many."""
    return some if len(some) < 4 * rows else nsmallest(rows, some)


def _pages(connection: Connection, version: str, first: str, last: str) -> Iterator[list[JournalRow]]:
    """Yield the predictions of a version in a range of ids."""
    of_version = (
        select(blocks.c.first_id, blocks.c.ids, blocks.c.probabilities)
        .where(blocks.c.model_version == version, blocks.c.first_id <= last)
        .order_by(blocks.c.first_id)
        .limit(PAGE)
    )
    after = earliest(first)
    while True:
        page = connection.execute(of_version.where(blocks.c.first_id > after)).all()
        if not page:
            return
        scores = [pair for row in page for pair in zip(ids_of(row.ids), row.probabilities, strict=True)]
        yield _with_outcomes(connection, [pair for pair in scores if first <= pair[0] <= last])
        after = page[-1].first_id


def _with_outcomes(connection: Connection, pairs: list[tuple[str, float]]) -> list[JournalRow]:
    """Return predictions with their outcomes."""
    own = outcomes.c
    range_ = own.prediction_id.between(min(pairs)[0], max(pairs)[0]) if pairs else own.prediction_id.is_(None)
    told = {row[0]: row[1] for row in connection.execute(select(own.prediction_id, own.positive).where(range_))}
    return [JournalRow(name[ID_RANDOM:], name, score, told.get(name)) for name, score in pairs]


def _features(connection: Connection, ids: list[str]) -> pd.DataFrame:
    """Return the features of predictions, categories as text, in the order of the ids, which are sorted."""
    known = {row.digest: row.features for row in connection.execute(select(layouts))}
    packed: dict[str, list[pd.DataFrame]] = {}
    for block, positions in holding(connection, ids, blocks.c.layout, blocks.c.rows, blocks.c.features):
        values = features_of(block.features, block.rows)[list(positions.values())]
        packed.setdefault(block.layout, []).append(pd.DataFrame(values, index=list(positions)))
    frames = [_named(pd.concat(parts), known[digest]) for digest, parts in packed.items()]
    if not frames:
        frames = [pd.DataFrame(columns=list(FEATURE_NAMES))]
    found = pd.concat(frames).loc[ids].reset_index(drop=True)
    numbers = [name for name in FEATURE_NAMES if name not in CATEGORIES]
    return found.astype(dict.fromkeys(numbers, float))


def _named(values: pd.DataFrame, layout: list[dict[str, Any]]) -> pd.DataFrame:
    """Return features by name, with their categories instead of the codes; those that a layout lacks are missing."""
    columns = {}
    for position, feature in enumerate(layout):
        column = values[position]
        if feature["categories"] is not None:
            texts = np.array([*feature["categories"], None], dtype=object)
            column = pd.Series(texts[column.fillna(-1).astype(int)], values.index)
        columns[feature["name"]] = column
    return pd.DataFrame(columns).reindex(columns=list(FEATURE_NAMES))


def outcomes_since(engine: Engine, moment: float) -> int:
    """Return how many outcomes were received since a moment (seconds since 1970)."""
    since = datetime.fromtimestamp(moment, UTC)
    with reading(engine) as connection:
        return int(connection.scalar(select(func.count()).where(outcomes.c.received_at >= since)) or 0)
