"""The journal as a source of rows: its requests with their outcomes."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click
from pydantic import ValidationError
from sqlalchemy import select

from app.interface import Outcome, Request
from app.journal.blocks import holding, requests_of
from app.journal.database import connect, reading
from app.journal.tables import blocks, outcomes
from ops.data import add
from stages import interface
from stages.base.errors import DataInvalid
from stages.tables import fetch
from stages.tables.read import load_tables

BODIES = blocks.c.requests_format, blocks.c.requests


class Reported(NamedTuple):
    """A request and its outcome."""

    received_at: datetime
    id: str
    request: dict[str, Any]
    details: dict[str, Any]


def collect_rows(url: str, since: datetime | None) -> list[Path]:
    """Write the journal's requests that have an outcome as files of raw rows, one per table with rows; return these.

    Raises DataInvalid if the problem cannot make rows of them; JournalMissing and JournalInvalid.
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
    rejected = f", {invalid:,} invalid today" if invalid else ""
    click.echo(f"journal: {len(told):,} requests with outcomes{rejected}")
    if not told:
        return []
    tables = interface.raw_rows(requests, told, load_tables(fetch.DATA_DIR))
    paths = {add.WORK / f"{table}-journal.parquet": frame for table, frame in tables.items() if len(frame)}
    for path, frame in paths.items():
        frame.to_parquet(path, index=False)
    return list(paths)


def _read(url: str, since: datetime | None) -> list[Reported]:
    """Return the predictions that have a request and an outcome, in the order of the reports."""
    told = select(outcomes.c.prediction_id, outcomes.c.received_at, outcomes.c.details)
    if since:
        if since.tzinfo is None:
            since = since.replace(tzinfo=UTC)
        told = told.where(outcomes.c.received_at >= since)
    with reading(connect(url)) as connection:
        details = {row.prediction_id: (row.received_at, row.details) for row in connection.execute(told)}
        requests: dict[str, Any] = {}
        for block, positions in holding(connection, sorted(details), *BODIES):
            received = requests_of(block.requests, block.requests_format)
            requests.update((name, received[position]) for name, position in positions.items())
    return sorted(Reported(details[name][0], name, request, details[name][1]) for name, request in requests.items())
