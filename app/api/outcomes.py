"""What came of a prediction: POST /outcomes, so that the quality of the live model can be computed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from app.api import problem_details as problems
from app.api.schemas import MAX_BATCH, Strict
from app.journal import FLUSH_SECONDS, Journal, outcomes, predictions, upsert

LATE_MINUTES = 15
"""Delay on arrival from which on a flight is not on time, as the pipeline has it in params.yaml."""

WAIT_SECONDS = 1.0
EXAMPLE: dict[str, Any] = {
    "prediction_id": "0190b6c2f8c94e4f9d0f6f4f3d2b1a00",
    "status": "arrived",
    "delay_minutes": 22,
}


ARRIVED_HAS_DELAY: dict[str, Any] = {
    "if": {"properties": {"status": {"const": "arrived"}}},
    "then": {"required": ["delay_minutes"], "properties": {"delay_minutes": {"type": "integer"}}},
    "else": {"properties": {"delay_minutes": {"type": "null"}}},
}


def _number(value: Any) -> Any:
    """Refuse true, false and text, which would pass for whole numbers; 22.0 is one."""
    if isinstance(value, bool | str):
        raise ValueError("must be a whole number")
    return value


class Outcome(Strict):
    """What became of a flight that was predicted."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE], **ARRIVED_HAS_DELAY})

    prediction_id: str = Field(description="As the prediction had it.", pattern="^[0-9a-f]{32}$")
    status: Literal["arrived", "cancelled", "diverted"] = "arrived"
    delay_minutes: Annotated[int | None, BeforeValidator(_number)] = Field(
        default=None,
        ge=-1440,
        le=10080,
        description="Delay on arrival, minutes; negative when early; for a flight that arrived, and for no other.",
    )

    @model_validator(mode="after")
    def _delay_fits(self) -> Self:
        if (self.status == "arrived") != (self.delay_minutes is not None):
            raise ValueError("delay_minutes is given when status is arrived, and only then")
        return self

    @property
    def not_on_time(self) -> bool:
        """Whether it was late, cancelled or diverted."""
        return self.delay_minutes is None or self.delay_minutes >= LATE_MINUTES


class Outcomes(Strict):
    """Outcomes that are written together."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"outcomes": [EXAMPLE]}]})

    outcomes: list[Outcome] = Field(min_length=1, max_length=MAX_BATCH)


class Recorded(BaseModel):
    """An outcome that is in the journal."""

    prediction_id: str
    not_on_time: bool = Field(description="15 or more minutes late, cancelled or diverted.")


class RecordedBatch(BaseModel):
    """What was done with the outcomes of a batch."""

    recorded: int = Field(description="Outcomes that are in the journal now.")
    unknown: list[str] = Field(description="Ids that the journal does not have; nothing was recorded for them.")


def _journal(request: Request) -> Journal:
    journal: Journal | None = request.app.state.journal
    if journal is None:
        raise HTTPException(404, "This service keeps no journal (ONTIME_JOURNAL_URL is empty).")
    return journal


Kept = Annotated[Journal, Depends(_journal)]


def install(app: FastAPI) -> None:
    """Add the routes."""

    @app.post("/outcomes", tags=["outcomes"], responses=problems.documented(400, 404, 413, 422))
    async def report(outcome: Outcome, journal: Kept) -> Recorded:
        """Say what became of one flight; saying it again changes nothing, saying something else replaces it."""
        if await record(journal, [outcome]):
            raise HTTPException(404, "There is no such prediction in the journal; it may be too old.")
        return Recorded(prediction_id=outcome.prediction_id, not_on_time=outcome.not_on_time)

    @app.post("/outcomes/batch", tags=["outcomes"], responses=problems.documented(400, 404, 413, 422))
    async def report_batch(batch: Outcomes, journal: Kept) -> RecordedBatch:
        """Say what became of 1 to 1,000 flights; the last word on a flight counts."""
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
    there = select(predictions.c.id, outcomes.c.status, outcomes.c.delay_minutes).select_from(joined)
    with journal.engine.connect() as connection:
        found = connection.execute(there.where(predictions.c.id.in_([o.prediction_id for o in reported]))).all()
    before = {name: (status, delay) for name, status, delay in found}
    news = [o for o in reported if before.get(o.prediction_id, ...) not in (..., (o.status, o.delay_minutes))]
    if news:
        statement = upsert(journal.engine, outcomes)
        changed = {column.name: column for column in statement.excluded if not column.primary_key}
        statement = statement.on_conflict_do_update(index_elements=[outcomes.c.prediction_id], set_=changed)
        with journal.engine.begin() as connection:
            connection.execute(statement, [_row(outcome) for outcome in sorted(news, key=lambda o: o.prediction_id)])
    for outcome in news:
        if before[outcome.prediction_id] == (None, None):  # corrections are not counted again
            journal.metrics.outcomes.labels("not_on_time" if outcome.not_on_time else "on_time").inc()
    return set(before)


def _row(outcome: Outcome) -> dict[str, Any]:
    return {
        "prediction_id": outcome.prediction_id,
        "received_at": datetime.now(UTC),
        "delay_minutes": outcome.delay_minutes,
        "status": outcome.status,
        "not_on_time": outcome.not_on_time,
    }
