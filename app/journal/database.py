"""The journal's database: connections to it, and its schema's version.

Rows are only inserted and expired, so the image contains no migration tool: the journal stores its schema version and
rejects a database with a different one. A change that former releases cannot read or write raises the version and
documents the migration here; services of the former version stop writing as soon as the version is raised.

Version 3 has predictions in blocks, version 2 had a row for each. `prepare` renames the table of version 2, in an
instant; its rows are read until they expire, and `predictions` is a view, into which a former release cannot insert.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from pydantic_core import to_json
from sqlalchemy import Connection, Engine, Table, create_engine, delete, inspect, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from app.errors import OnTimeError
from app.journal import files
from app.journal.tables import FORMER, SCHEMA, VIEW, VIEWS, blocks, former, id_at, metadata, outcomes, schema

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

ROWS, BLOCKS = 500, 20
"""Rows and blocks deleted per transaction."""

CONNECT: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": 1},
    "postgresql": {"connect_timeout": 3, "tcp_user_timeout": 5000, "options": "-c statement_timeout=5000"},
}
"""Timeouts by dialect: a database that does not respond counts as down."""
LOCK = 1_684_105
"""Key of PostgreSQL's lock of those that create or migrate the journal."""


class JournalInvalid(OnTimeError):
    """The URL, the database or its schema version is not one of a journal that this code can use."""


class JournalMissing(OnTimeError):
    """There is no journal yet."""


def connect(url: str) -> Engine:
    """Return an engine for a journal; it connects on first use. Raises JournalInvalid if the URL is not one."""
    try:
        dialect = make_url(url).get_backend_name()
        timeouts = CONNECT[dialect]
    except (ArgumentError, KeyError) as err:  # the URL may have a password
        raise JournalInvalid(
            "ONTIME_JOURNAL_URL names no journal: set it to sqlite:///file.db or postgresql://user@host/database."
        ) from err
    engine = create_engine(
        url,
        connect_args=timeouts,
        pool_pre_ping=dialect != "sqlite",
        pool_timeout=2,
        json_serializer=lambda value: to_json(value).decode(),
    )
    if dialect == "sqlite":
        files.watch(engine)
    return engine


@contextmanager
def committed(connection: Connection) -> Iterator[None]:
    """Run the block in a transaction; raise JournalMoved if the files were removed or replaced before the commit."""
    with connection.begin():
        yield
    if files.moved(connection.info):
        raise files.JournalMoved("the files of the journal were removed or replaced during a transaction")


def upsert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert statement of the dialect, which supports ON CONFLICT."""
    dialect = import_module(f"sqlalchemy.dialects.{connection.dialect.name}")  # importing both is slow
    return cast("sqlite.Insert | postgresql.Insert", dialect.insert(table))


def prepare(engine: Engine) -> bool:
    """Create what is missing, and return whether anything was; raise JournalInvalid if the schema version differs."""
    with engine.connect() as connection, committed(connection):
        return prepare_on(connection)


def prepare_on(connection: Connection) -> bool:
    """Do the work of `prepare` in the transaction of a connection."""
    complete = _complete(connection)
    if not complete:
        lock = "BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else f"SELECT pg_advisory_xact_lock({LOCK})"
        connection.exec_driver_sql(lock)  # others may do the same
        _create(connection)
    if not connection.scalars(select(schema.c.version)).all():
        connection.execute(upsert(connection, schema).values(version=SCHEMA).on_conflict_do_nothing())
    check_schema(connection)
    return not complete


def _complete(connection: Connection) -> bool:
    found = inspect(connection)
    return {*metadata.tables, VIEW} <= {*found.get_table_names(), *found.get_view_names()}


def _create(connection: Connection) -> None:
    """Create missing tables and the view; migrate version 2."""
    found = inspect(connection)
    tables = found.get_table_names()
    if schema.name in tables and connection.scalars(select(schema.c.version)).all() not in ([], [FORMER]):
        check_schema(connection)
    if VIEW in tables:
        if "request" not in {column["name"] for column in found.get_columns(VIEW)}:
            connection.exec_driver_sql(f"ALTER TABLE {VIEW} ADD COLUMN request JSON")
        connection.exec_driver_sql(f"ALTER TABLE {VIEW} RENAME TO {former.name}")
        connection.execute(update(schema).values(version=SCHEMA))
    for table in metadata.sorted_tables:
        connection.execute(CreateTable(table, if_not_exists=True))
        for index in table.indexes:
            connection.execute(CreateIndex(index, if_not_exists=True))
    if VIEW not in found.get_view_names():
        connection.exec_driver_sql(VIEWS[connection.dialect.name])


def check_schema(connection: Connection) -> None:
    """Raise JournalInvalid if the schema version is not `SCHEMA`."""
    found = list(connection.scalars(select(schema.c.version)))
    if found != [SCHEMA]:
        way = "start the service of this release (`make serve`), which migrates it"
        if found != [FORMER]:
            way = "run the matching release, or set ONTIME_JOURNAL_URL to another database"
        raise JournalInvalid(
            f"the journal at {connection.engine.url!r} has schema version {', '.join(map(str, found)) or 'none'}, this "
            f"service needs {SCHEMA}: {way}."
        )


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Yield a connection to a journal that exists; nothing is created.

    Raises JournalMissing if there is none yet, and JournalInvalid if it cannot be read.
    """
    path = files.file_of(engine.url) if engine.dialect.name == "sqlite" else ""
    missing = JournalMissing(
        f"no predictions yet: there is no journal at {engine.url!r}. The service creates it (`make serve`); the "
        "variable ONTIME_JOURNAL_URL has to be the same for both."
    )
    if path and not os.path.exists(path):
        raise missing
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table(schema.name):
                raise missing
            check_schema(connection)
            yield connection
    except SQLAlchemyError as err:
        raise JournalInvalid(f"the journal at {engine.url!r} cannot be read: {first_line(err)}") from err


def first_line(err: Exception) -> str:
    """Return the first line of an error's text; SQLAlchemy appends statement and parameters."""
    return (str(err).strip() or repr(err)).splitlines()[0]


def expire(engine: Engine, before: datetime) -> None:
    """Delete the predictions made before a time and their outcomes, in small transactions."""
    first = id_at(before)
    for key, old, rows in (
        (blocks.c.first_id, (blocks.c.first_id < first) & (blocks.c.last_id < first), BLOCKS),
        (former.c.id, former.c.created_at < before, ROWS),
        (outcomes.c.prediction_id, outcomes.c.prediction_id < first, ROWS),
    ):
        some = delete(key.table).where(key.in_(select(key).where(old).limit(rows)))
        deleted = rows
        while deleted == rows:
            with engine.begin() as connection:
                deleted = connection.execute(some).rowcount
