"""The journal as a source of rows: its requests with their outcomes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError
from sqlalchemy import Row, select

from app.interface import Outcome, Request
from app.journal.database import connect, has_requests, outcomes, predictions, reading
from ops.data import add
from stages import fetch, interface
from stages.errors import DataInvalid
from stages.raw import load_tables


def collect(url: str, since: datetime | None) -> list[Path]:
    """Write the journal's requests that have an outcome as files of raw rows, one per table with rows; return these.

    Raises DataInvalid if the problem cannot make rows of them, or the journal has no requests; JournalMissing and
    JournalInvalid.
    """
    if interface.raw_rows is None:
        raise DataInvalid("stages/problem does not define raw_rows, which docs/adapt.md describes: add files instead.")
    requests: list[Request] = []
    told: list[Outcome] = []
    invalid = 0
    for row in _read(url, since):
        try:
            outcome = Outcome.model_validate({"prediction_id": row.id} | row.details)
            requests.append(Request.model_validate(row.request))
        except ValidationError:  # recorded by a release with another schema
            invalid += 1
        else:
            told.append(outcome)
    click.echo(f"journal: {len(told):,} requests with outcomes" + (f", {invalid:,} invalid today" if invalid else ""))
    if not told:
        return []
    tables = interface.raw_rows(requests, told, load_tables(fetch.DATA_DIR))
    paths = {add.WORK / f"{table}-journal.parquet": frame for table, frame in tables.items() if len(frame)}
    for path, frame in paths.items():
        frame.to_parquet(path, index=False)
    return list(paths)


def _read(url: str, since: datetime | None) -> Sequence[Row[Any, Any, Any]]:
    """Return id, request and details of the outcome of each prediction that has both, in the order of the reports."""
    own = predictions.c
    query = select(own.id, own.request, outcomes.c.details).join(outcomes, own.id == outcomes.c.prediction_id)
    if since:
        query = query.where(outcomes.c.received_at >= (since if since.tzinfo else since.replace(tzinfo=UTC)))
    engine = connect(url)
    with reading(engine) as connection:
        if not has_requests(connection):
            raise DataInvalid(
                f"the journal at {engine.url!r} has no requests: the service records them (`make serve`) from this "
                "release on."
            )
        where = predictions.c.request.is_not(None)
        return connection.execute(query.where(where).order_by(outcomes.c.received_at, own.created_at, own.id)).all()
