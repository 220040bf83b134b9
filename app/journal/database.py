"""The journal's database: its tables, and the connections to it.

Rows are only inserted and expired, so the image contains no migration tool: the journal stores its schema version and
rejects a database with a different one. A change that former releases cannot read or write raises the version and
documents the migration here; services of the former version stop writing as soon as the version is raised. A nullable
column does not: former releases ignore it, also after a rollback, and `prepare` adds it to tables that lack it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from pydantic_core import to_json
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Float,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    create_engine,
    delete,
    inspect,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.schema import CreateIndex, CreateTable

from app.errors import OnTimeError
from app.journal import files

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

SCHEMA = 2
ROWS = 500
"""Rows per transaction; small enough not to delay the requests of the same process."""

CONNECT: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": 1},
    "postgresql": {"connect_timeout": 3, "tcp_user_timeout": 5000, "options": "-c statement_timeout=5000"},
}
"""Timeouts by dialect: a database that does not respond counts as down."""


class JournalInvalid(OnTimeError):
    """The URL, the database or its schema version is not one of a journal that this code can use."""


class JournalMissing(OnTimeError):
    """There is no journal yet."""


class _Time(TypeDecorator[datetime]):  # pylint: disable=too-many-ancestors # SQLAlchemy's
    """A time with its zone; stored as UTC in SQLite, which has no time zones."""

    # pylint: disable=unused-argument # the signatures are SQLAlchemy's
    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


metadata = MetaData()
predictions = Table(
    "predictions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", _Time, nullable=False, index=True),
    Column("model_version", Text, nullable=False),
    Column("probability", Float, nullable=False),
    Column(
        "features", JSON, nullable=False, comment="Values by name, as passed to the model; null if missing or unseen."
    ),
    Column("request", JSON, comment="The request as validated; null before this column existed."),
)
outcomes = Table(
    "outcomes",
    metadata,
    Column("prediction_id", Text, primary_key=True),
    Column("received_at", _Time, nullable=False),
    Column("positive", Boolean, nullable=False, comment="Whether the predicted event happened."),
    Column("details", JSON, nullable=False, comment="The outcome as it was reported."),
)
schema = Table("journal_schema", metadata, Column("version", Integer, primary_key=True, autoincrement=False))


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
        json_serializer=lambda value: to_json(value, exclude_none=True).decode(),  # of a model; a dict keeps them
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
    """Create missing tables, and return whether there were any; raise JournalInvalid if the schema version differs."""
    with engine.connect() as connection, committed(connection):
        return prepare_on(connection)


def prepare_on(connection: Connection) -> bool:
    """Do the work of `prepare` in the transaction of a connection."""
    complete = _complete(connection)
    if not complete:
        for table in metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
    elif not has_requests(connection):
        _add_requests(connection)
    if connection.scalar(select(schema.c.version)) is None:
        connection.execute(upsert(connection, schema).values(version=SCHEMA).on_conflict_do_nothing())
    check_schema(connection)
    return not complete


def _complete(connection: Connection) -> bool:
    return set(metadata.tables) <= set(inspect(connection).get_table_names())


def has_requests(connection: Connection) -> bool:
    """Return whether the predictions have their requests; those of releases before this column have none."""
    return predictions.c.request.name in {column["name"] for column in inspect(connection).get_columns("predictions")}


def _add_requests(connection: Connection) -> None:
    """Add the column, unless another process has added it meanwhile."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # waits for that process
        if not has_requests(connection):
            connection.exec_driver_sql("ALTER TABLE predictions ADD COLUMN request JSON")
    else:
        connection.exec_driver_sql("ALTER TABLE predictions ADD COLUMN IF NOT EXISTS request JSON")


def check_schema(connection: Connection) -> None:
    """Raise JournalInvalid if the schema version is not `SCHEMA`."""
    found = connection.scalars(select(schema.c.version)).all()
    if found != [SCHEMA]:
        raise JournalInvalid(
            f"the journal at {connection.engine.url!r} has schema version {', '.join(map(str, found)) or 'none'}, this "
            f"service needs {SCHEMA}: run the matching release, or set ONTIME_JOURNAL_URL to another database."
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
            if not _complete(connection):
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
    old = select(predictions.c.id).where(predictions.c.created_at < before).limit(ROWS)
    while True:
        with engine.begin() as connection:
            ids = connection.scalars(old).all()
            connection.execute(delete(outcomes).where(outcomes.c.prediction_id.in_(ids)))
            connection.execute(delete(predictions).where(predictions.c.id.in_(ids)))
        if len(ids) < ROWS:
            return
