"""The journal's database: connections to it, and its tables.

Rows are only inserted and expired, so the image contains no migration tool: the journal stores its schema version, and
a database with another version is rejected. A change that another release cannot read or write raises the version.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from pydantic_core import to_json
from sqlalchemy import Connection, Engine, Table, create_engine, delete, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from app.addresses import without_password
from app.errors import OnTimeError
from app.journal import files
from app.journal.tables import SCHEMA, VIEWS, blocks, id_at, metadata, outcomes, schema

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
"""Key of PostgreSQL's lock of those that create the tables."""


class JournalInvalid(OnTimeError):
    """The URL, the database or its schema version does not belong to a journal that this version supports."""


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


def prepare(engine: Engine) -> None:
    """Do the work of `prepare_on` on a connection of its own."""
    with engine.connect() as connection:
        prepare_on(connection)


def prepare_on(connection: Connection) -> tuple[Any, ...]:
    """Create the tables that are missing, and return what identifies this journal: another one if any were.

    Raises JournalInvalid if the schema version differs.
    """
    lock = "BEGIN IMMEDIATE" if connection.dialect.name == "sqlite" else f"SELECT pg_advisory_xact_lock({LOCK})"
    with committed(connection):
        if not _is_complete(connection):
            connection.exec_driver_sql(lock)
            if not _is_complete(connection):  # no other process was faster
                _create(connection)
        check_schema(connection)
        main_file = connection.info.get("files", [None])[0]
        return connection.scalar(select(schema.c.identity)), main_file


def _is_complete(connection: Connection) -> bool:
    tables = inspect(connection).get_table_names()
    return set(metadata.tables) <= set(tables) and connection.scalar(select(schema.c.version)) is not None


def _create(connection: Connection) -> None:
    if inspect(connection).has_table(schema.name) and connection.scalar(select(schema.c.version)) is not None:
        check_schema(connection)
        connection.execute(delete(schema))
    metadata.create_all(connection)
    connection.exec_driver_sql(VIEWS[connection.dialect.name])
    connection.execute(schema.insert().values(version=SCHEMA, identity=uuid.uuid4().hex))


def check_schema(connection: Connection) -> None:
    """Raise JournalInvalid if the schema version is not `SCHEMA`."""
    version = connection.scalar(select(schema.c.version))
    if version != SCHEMA:
        raise JournalInvalid(
            f"the journal at {address(connection.engine)} has schema version {version or 'none'}, this service needs "
            f"{SCHEMA}: run the matching release, or set ONTIME_JOURNAL_URL to another database."
        )


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Yield a connection to a journal that exists; nothing is created.

    Raises JournalMissing if there is none yet, and JournalInvalid if it cannot be read.
    """
    path = files.file_of(engine.url) if engine.dialect.name == "sqlite" else ""
    missing = JournalMissing(
        f"no predictions yet: there is no journal at {address(engine)}. The service creates it (`make serve`); the "
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
        raise JournalInvalid(f"the journal at {address(engine)} cannot be read: {first_line(err)}") from err


def address(engine: Engine) -> str:
    """Return the URL of a database without its credentials."""
    return without_password(engine.url.render_as_string(hide_password=False))


def first_line(err: Exception) -> str:
    """Return the first line of an error's text; SQLAlchemy appends statement and parameters."""
    return (str(err).strip() or repr(err)).splitlines()[0]


def expire(engine: Engine, before: datetime) -> None:
    """Delete the predictions made before a time and their outcomes, in small transactions."""
    first = id_at(before)
    for key, is_old, rows in (
        (blocks.c.first_id, (blocks.c.first_id < first) & (blocks.c.last_id < first), BLOCKS),
        (outcomes.c.prediction_id, outcomes.c.prediction_id < first, ROWS),
    ):
        some = delete(key.table).where(key.in_(select(key).where(is_old).limit(rows)))
        deleted = rows
        while deleted == rows:
            with engine.begin() as connection:
                deleted = connection.execute(some).rowcount
