"""POST /outcomes: what was observed for earlier predictions, from which the quality of the live model is computed."""

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
        raise HTTPException(404, "This service keeps no journal (ONTIME_JOURNAL_URL is empty).")
    return journal


Kept = Annotated[Journal, Depends(_journal)]


def install(app: FastAPI) -> None:
    """Add the routes."""

    @app.post("/outcomes", tags=["outcomes"], responses=problem_details.documented(400, 404, 413, 422))
    async def report(outcome: Outcome, journal: Kept) -> Recorded:
        """Report the outcome of one prediction; a repeated report changes nothing, another one replaces it."""
        if await record(journal, [outcome]):
            raise HTTPException(404, "There is no such prediction in the journal; it may be too old.")
        return Recorded(prediction_id=outcome.prediction_id, positive=outcome.positive)

    @app.post("/outcomes/batch", tags=["outcomes"], responses=problem_details.documented(400, 404, 413, 422))
    async def report_batch(batch: Outcomes, journal: Kept) -> RecordedBatch:
        """Report 1 to 1,000 outcomes; the last one for a prediction counts."""
        unknown = await record(journal, batch.outcomes)
        recorded = sum(outcome.prediction_id not in unknown for outcome in batch.outcomes)
        return RecordedBatch(recorded=recorded, unknown=sorted(unknown))


async def record(journal: Journal, reported: Sequence[Outcome]) -> set[str]:
    """Write outcomes to the journal and return the ids that it does not have; answer 503 when it does not answer."""
    started = time.monotonic()
    rest = {outcome.prediction_id: outcome for outcome in reported}
    try:
        while True:
            known = await run_in_threadpool(_write, journal, list(rest.values()))
            rest = {name: outcome for name, outcome in rest.items() if name not in known}
            waiting, waited = journal.waiting(rest), time.monotonic() - started
            # A prediction may be in the queue still, of this worker or of another one.
            if not rest or waited > WAIT_SECONDS or (not waiting and waited > 2 * FLUSH_SECONDS):
                break
            await asyncio.sleep(FLUSH_SECONDS)
    except SQLAlchemyError as err:
        raise HTTPException(503, "The journal does not answer.", {"Retry-After": "1"}) from err
    if waiting:
        raise HTTPException(503, "The journal is behind with writing predictions.", {"Retry-After": "1"})
    return set(rest)


def _write(journal: Journal, reported: list[Outcome]) -> set[str]:
    """Write those outcomes whose predictions are in the journal, and return the ids of these."""
    joined = predictions.outerjoin(outcomes, predictions.c.id == outcomes.c.prediction_id)
    there = select(predictions.c.id, outcomes.c.details).select_from(joined)
    with journal.engine.connect() as connection:
        found = connection.execute(there.where(predictions.c.id.in_([o.prediction_id for o in reported]))).all()
    before = {name: details for name, details in found}
    news = [o for o in reported if before.get(o.prediction_id, ...) not in (..., _details(o))]
    if news:
        statement = upsert(journal.engine, outcomes)
        changed = {column.name: column for column in statement.excluded if not column.primary_key}
        statement = statement.on_conflict_do_update(index_elements=[outcomes.c.prediction_id], set_=changed)
        with journal.engine.begin() as connection:
            connection.execute(statement, [_row(outcome) for outcome in sorted(news, key=lambda o: o.prediction_id)])
    for outcome in news:
        if before[outcome.prediction_id] is None:  # corrections are not counted again
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
