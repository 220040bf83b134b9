"""POST /outcomes: the observed outcomes of predictions, from which live performance is computed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.api import problem_details
from app.api.schemas import Outcomes, Recorded, RecordedBatch
from app.interface import Outcome
from app.journal import FLUSH_SECONDS, Journal, outcomes, predictions, upsert

WAIT_SECONDS = 1.0


def _journal(request: Request) -> Journal:
    journal: Journal | None = request.app.state.journal
    if journal is None:
        raise HTTPException(404, "This service has no journal (ONTIME_JOURNAL_URL is none).")
    return journal


Kept = Annotated[Journal, Depends(_journal)]


def install(app: FastAPI) -> None:
    """Add the routes."""

    @app.post("/outcomes", tags=["outcomes"], responses=problem_details.documented(400, 404, 413, 422))
    async def report(outcome: Outcome, journal: Kept) -> Recorded:
        """Report the outcome of one prediction; reporting another outcome later replaces it."""
        if await record(journal, [outcome]):
            raise HTTPException(404, "The journal has no prediction with this id; it may have expired.")
        return Recorded(prediction_id=outcome.prediction_id, positive=outcome.positive)

    @app.post("/outcomes/batch", tags=["outcomes"], responses=problem_details.documented(400, 404, 413, 422))
    async def report_batch(batch: Outcomes, journal: Kept) -> RecordedBatch:
        """Report 1 to 1,000 outcomes; of several for one prediction, the last is recorded."""
        unknown = await record(journal, batch.outcomes)
        recorded = sum(outcome.prediction_id not in unknown for outcome in batch.outcomes)
        return RecordedBatch(recorded=recorded, unknown=sorted(unknown))


async def record(journal: Journal, reported: Sequence[Outcome]) -> set[str]:
    """Write outcomes to the journal; return the unknown prediction ids. Raises 503 if the journal is down or behind."""
    started = time.monotonic()
    rest = {outcome.prediction_id: outcome for outcome in reported}
    try:
        while True:
            known = await run_in_threadpool(_write, journal, list(rest.values()))
            rest = {name: outcome for name, outcome in rest.items() if name not in known}
            waiting, waited = journal.waiting(rest), time.monotonic() - started
            # The prediction may still be in the queue of this worker or of another one.
            if not rest or waited > WAIT_SECONDS or (not waiting and waited > 2 * FLUSH_SECONDS):
                break
            await asyncio.sleep(FLUSH_SECONDS)
    except SQLAlchemyError as err:
        raise HTTPException(503, "The journal is unavailable.", {"Retry-After": "1"}) from err
    if waiting:
        raise HTTPException(503, "Predictions are still waiting to be written to the journal.", {"Retry-After": "1"})
    return set(rest)


def _write(journal: Journal, reported: list[Outcome]) -> set[str]:
    """Write the outcomes whose predictions are in the journal; return the ids of these predictions."""
    joined = predictions.outerjoin(outcomes, predictions.c.id == outcomes.c.prediction_id)
    there = select(predictions.c.id, outcomes.c.details).select_from(joined)
    with journal.engine.connect() as connection:
        found = connection.execute(there.where(predictions.c.id.in_([o.prediction_id for o in reported]))).all()
    before = {row.id: row.details for row in found}
    news = [o for o in reported if before.get(o.prediction_id, ...) not in (..., _details(o))]
    if news:
        statement = upsert(journal.engine, outcomes)
        changed = {column.name: column for column in statement.excluded if not column.primary_key}
        statement = statement.on_conflict_do_update(index_elements=[outcomes.c.prediction_id], set_=changed)
        with journal.engine.begin() as connection:
            connection.execute(statement, [_row(outcome) for outcome in sorted(news, key=lambda o: o.prediction_id)])
    for outcome in news:
        if before[outcome.prediction_id] is None:  # a correction is not counted
            journal.metrics.outcomes.labels("positive" if outcome.positive else "negative").inc()
    return set(before)


def _details(outcome: Outcome) -> dict[str, Any]:
    return outcome.model_dump(mode="json", exclude={"prediction_id"})


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "prediction_id": outcome.prediction_id,
        "received_at": datetime.now(UTC),
        "positive": outcome.positive,
        "details": _details(outcome),
    }
