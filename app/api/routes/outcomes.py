"""POST /outcomes: the observed outcomes of predictions, from which live performance is computed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from app.api import contract
from app.api.edge import bodies, problem_details
from app.api.schemas import Outcomes, Recorded, RecordedBatch
from app.interface import Outcome
from app.journal.blocks import holding
from app.journal.database import JournalInvalid, check_schema, committed, upsert
from app.journal.tables import outcomes
from app.journal.writer import FLUSH_SECONDS, Journal

WAIT_SECONDS = 1.0


@dataclass
class Result:
    """The ids of predictions by the result of their outcomes."""

    recorded: set[str] = field(default_factory=set)
    unchanged: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


def _journal(request: Request) -> Journal:
    journal: Journal | None = request.app.state.journal
    if journal is None:
        raise HTTPException(404, "This service has no journal (ONTIME_JOURNAL_URL is none).")
    return journal


Kept = Annotated[Journal, Depends(_journal)]


def install(app: FastAPI) -> None:
    """Add the routes."""
    responses = problem_details.documented(400, 404, 413, 415, 422)

    @app.post("/outcomes", tags=["outcomes"], responses=responses, openapi_extra=contract.body(Outcome))
    async def report(journal: Kept, outcome: Annotated[Outcome, Depends(bodies.OUTCOME.read)]) -> Recorded:
        """Report the outcome of one prediction; reporting another outcome later replaces it."""
        result = await record(journal, [outcome])
        if result.unknown:
            raise HTTPException(404, "The journal has no prediction with this id; it may have expired.")
        unchanged = bool(result.unchanged)
        return Recorded(prediction_id=outcome.prediction_id, positive=outcome.positive, unchanged=unchanged)

    @app.post("/outcomes/batch", tags=["outcomes"], responses=responses, openapi_extra=contract.body(Outcomes))
    async def report_batch(journal: Kept, batch: Annotated[Outcomes, Depends(bodies.OUTCOMES.read)]) -> RecordedBatch:
        """Report 1 to 1,000 outcomes; of several for one prediction, the last is recorded."""
        result = await record(journal, batch.outcomes)
        unknown = sorted(result.unknown)
        return RecordedBatch(recorded=len(result.recorded), unchanged=len(result.unchanged), unknown=unknown)


async def record(journal: Journal, reported: Sequence[Outcome]) -> Result:
    """Write outcomes to the journal, of several for one prediction the last. Raises 503 if it is down or behind."""
    started, result = time.monotonic(), Result()
    rest = {outcome.prediction_id: outcome for outcome in reported}
    try:
        while True:
            # Read before the database: a prediction that leaves the queue in between is then in the database.
            waiting, waited = journal.waiting(rest), time.monotonic() - started
            done = await run_in_threadpool(_write, journal, list(rest.values()))
            result.recorded |= done.recorded
            result.unchanged |= done.unchanged
            rest = {name: rest[name] for name in done.unknown}
            waiting &= rest.keys()
            # The prediction may still be in the queue of this worker or of another one.
            if not rest or waited > WAIT_SECONDS or (not waiting and waited > 2 * FLUSH_SECONDS):
                break
            await asyncio.sleep(FLUSH_SECONDS)
    except (SQLAlchemyError, JournalInvalid) as err:
        raise HTTPException(503, "The journal is unavailable.", {"Retry-After": "1"}) from err
    if waiting:
        raise HTTPException(503, "Predictions are still waiting to be written to the journal.", {"Retry-After": "1"})
    result.unknown = set(rest)
    return result


def _write(journal: Journal, reported: list[Outcome]) -> Result:
    """Write outcomes of different predictions, as far as the journal has these and another or no outcome of them."""
    with journal.engine.connect() as connection, committed(connection):
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver itself begins at the first change only
        check_schema(connection)
        before = _lock(connection, [outcome.prediction_id for outcome in reported])
        news = [o for o in reported if before.get(o.prediction_id, ...) not in (..., _details(o))]
        if news:
            statement = upsert(connection, outcomes)
            changed = {column.name: column for column in statement.excluded if not column.primary_key}
            statement = statement.on_conflict_do_update(index_elements=[outcomes.c.prediction_id], set_=changed)
            connection.execute(statement, [_row(outcome) for outcome in news])
    for outcome in news:
        if before[outcome.prediction_id] is None:  # a correction is not counted
            journal.metrics.outcomes.labels("positive" if outcome.positive else "negative").inc()
    recorded, named = {o.prediction_id for o in news}, {o.prediction_id for o in reported}
    return Result(recorded, before.keys() - recorded, named - before.keys())


def _lock(connection: Connection, ids: list[str]) -> dict[str, dict[str, Any] | None]:
    """Lock the blocks of those predictions that exist; return the details of their outcomes, None without one.

    The order of the ids keeps two reports of the same predictions from blocking each other. Another statement reads
    the outcomes, as the first one does not see those that were written while it waited for a lock.
    """
    reported = outcomes.c.prediction_id
    there = {name for _, found in holding(connection, sorted(ids), lock=True) for name in found}
    known = connection.execute(select(reported, outcomes.c.details).where(reported.in_(there))).all()
    return dict.fromkeys(there) | {row.prediction_id: row.details for row in known}


def _details(outcome: Outcome) -> dict[str, Any]:
    return outcome.model_dump(mode="json", exclude={"prediction_id"})


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "prediction_id": outcome.prediction_id,
        "received_at": datetime.now(UTC),
        "positive": outcome.positive,
        "details": _details(outcome),
    }
