"""A journal in this process, and what its database and its metrics have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Table, func, select

from app.api.routes.outcomes import Result, record
from app.interface import Outcome
from app.journal.blocks import ids_of
from app.journal.database import connect
from app.journal.tables import blocks
from app.journal.writer import Journal
from app.metrics import Metrics
from app.model.prediction import Predictions
from app.settings import Settings
from tests.support.processes import wait_for

CAPACITY = 1000


def keep(url: str, metrics: Metrics) -> Journal:
    """Return a journal that is not started."""
    return Journal(Settings(journal_url=url, journal_queue=CAPACITY), metrics.journal)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Return the value of a metric."""
    found = metrics.registry.get_sample_value(name, labels)
    assert found is not None
    return found


def count(journal: Journal, table: Table) -> int:
    """Return how many rows a table has."""
    with journal.engine.connect() as connection:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)


def predicted(journal: Journal) -> int:
    """Return how many predictions are in the blocks."""
    with journal.engine.connect() as connection:
        return int(connection.scalar(select(func.sum(blocks.c.rows))) or 0)


def written(url: str) -> set[str]:
    """Return the ids in a journal, read by another connection."""
    engine = connect(url)
    with engine.connect() as connection:
        found = {name for ids in connection.scalars(select(blocks.c.ids)) for name in ids_of(ids)}
    engine.dispose()
    return found


@dataclass
class Running:
    """A journal whose writer runs."""

    url: str
    metrics: Metrics
    answer: Callable[..., Predictions]
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = keep(self.url, self.metrics)
        self.journal.start()

    def metric(self, name: str) -> float:
        """Return the value of a metric of the journal."""
        return value(self.metrics, f"journal_{name}")

    def record(self, rows: int) -> set[str]:
        """Record predictions, and return their ids."""
        made = self.answer(rows)
        self.journal.record(made)
        return set(made.ids)

    def write(self, rows: int) -> set[str]:
        """Record predictions, and return their ids when they have been written."""
        before, ids = self.metric("written_total"), self.record(rows)
        wait_for("they are written", lambda: self.metric("written_total") == before + rows)
        return ids

    def report(self, prediction_id: str) -> Result:
        """Report the outcome of a prediction."""
        return asyncio.run(record(self.journal, [Outcome(prediction_id=prediction_id, delay_minutes=3)]))

    def wait_until_up(self, up: bool) -> None:
        """Wait until the metric has this value."""
        wait_for(f"journal_up is {up:d}", lambda: self.metric("up") == up)


Run = Callable[[str], Running]
"""Starts a journal on a database."""
