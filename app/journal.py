"""The journal: every prediction, and what came of it, in SQLite or PostgreSQL; written off the request path.

There are two tables that only grow and age, so that no migration tool is in the image: the journal writes down the
version of its schema and refuses a database that has another one. A change that adds a column raises the version and
says here how older tables get it; old and new services write side by side during a deployment.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
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
    event,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.schema import CreateIndex, CreateTable

from app.errors import OnTimeError
from app.metrics import JournalMetrics
from app.model.prediction import Answer
from app.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

SCHEMA = 2
FLUSH_SECONDS = 0.02
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 5.0
EXPIRE_SECONDS = 3600.0
ROWS = 500
"""Rows in one transaction; small enough that the requests of the same process do not wait for it."""
STEP_ROWS = 100

CONNECT: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": 1},
    "postgresql": {"connect_timeout": 3, "tcp_user_timeout": 5000, "options": "-c statement_timeout=5000"},
}
"""A database that does not answer is one that is down."""

log = logging.getLogger("app.journal")


class JournalInvalid(OnTimeError):
    """The database holds a journal of another schema."""


class _Time(TypeDecorator[datetime]):  # pylint: disable=too-many-ancestors # SQLAlchemy's
    """A time with its zone; SQLite, which has none, keeps and gives UTC."""

    # pylint: disable=unused-argument # the names are SQLAlchemy's
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
    Column("features", JSON, nullable=False, comment="By name, as the model saw them; null is missing or unseen."),
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
    """Return an engine for a journal, which connects when it is first used."""
    dialect = make_url(url).get_backend_name()
    engine = create_engine(
        url,
        connect_args=CONNECT[dialect],
        pool_pre_ping=True,
        pool_timeout=2,
        json_serializer=lambda value: to_json(value).decode(),
    )
    if dialect == "sqlite":

        @event.listens_for(engine, "connect")
        def settings(connection: Any, _: Any) -> None:
            connection.execute("PRAGMA page_size = 16384")  # of a new file; a row has a kilobyte
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # what is written outlives the process, killed or not

    return engine


def upsert(engine: Engine, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert that can say what happens to a row that is there already."""
    dialect = import_module(f"sqlalchemy.dialects.{engine.dialect.name}")  # the other one takes a while to import
    return cast("sqlite.Insert | postgresql.Insert", dialect.insert(table))


def prepare(engine: Engine) -> None:
    """Make the tables where there are none; raise JournalInvalid if there are those of another schema."""
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
        found = connection.scalar(select(schema.c.version))
        if found is None:
            connection.execute(upsert(engine, schema).values(version=SCHEMA).on_conflict_do_nothing())
    if found not in (None, SCHEMA):
        raise JournalInvalid(
            f"the journal at {engine.url!r} has schema {found}, this service writes {SCHEMA}: "
            "serve the release that fits, or give ONTIME_JOURNAL_URL another database."
        )


def rows(answer: Answer) -> Iterator[tuple[Any, ...]]:
    """Return the rows of `predictions` that an answer makes."""
    created, served = datetime.fromtimestamp(answer.created, UTC), answer.served
    for name, row, probability in zip(answer.ids, answer.rows, answer.probabilities, strict=True):
        yield name, created, served.version, probability, served.bundle.values(row)


class Inserter:
    """Inserts many rows in one step; at each step the driver gives the interpreter's lock away, and waits for it."""

    def __init__(self, engine: Engine, table: Table) -> None:
        dialect, columns = engine.dialect, table.columns
        mark = "?" if dialect.paramstyle == "qmark" else "%s"
        self._row = f"({', '.join([mark] * len(columns))})"
        self._head = f"INSERT INTO {table.name} ({', '.join(columns.keys())}) VALUES "
        self._converters = [column.type.dialect_impl(dialect).bind_processor(dialect) or _same for column in columns]

    def insert(self, connection: Connection, new: Sequence[tuple[Any, ...]]) -> None:
        """Insert the rows that are not there yet."""
        for start in range(0, len(new), STEP_ROWS):
            part = new[start : start + STEP_ROWS]
            values = [convert(value) for row in part for convert, value in zip(self._converters, row, strict=True)]
            statement = f"{self._head}{', '.join([self._row] * len(part))} ON CONFLICT DO NOTHING"
            connection.exec_driver_sql(statement, tuple(values))


def _same(value: Any) -> Any:
    return value


class Journal:
    """A bounded queue of answers, and the thread that writes them.

    A database that is slow or gone delays no request: answers wait in the queue, what finds it full is dropped and
    counted, and writing goes on when the database is back.
    """

    def __init__(self, settings: Settings, metrics: JournalMetrics) -> None:
        self.engine, self.metrics = connect(settings.journal_url), metrics
        self._capacity, self._retention = settings.journal_queue, timedelta(days=settings.journal_retention_days)
        self._queue: deque[Answer] = deque()
        self._depth = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._inserter: Inserter | None = None
        self._up, self._expire_at = True, 0.0
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        metrics.capacity.set(self._capacity)

    def start(self) -> None:
        """Start writing."""
        self._thread.start()

    def close(self) -> None:
        """Write what waits, for a few seconds at most; the rest is dropped."""
        self._stop.set()
        self._thread.join(CLOSE_SECONDS)
        if self._depth:
            log.error("%d predictions are not in the journal: it did not answer in time", self._depth)
            self.metrics.dropped.inc(self._depth)
        self.engine.dispose()

    def record(self, answer: Answer) -> None:
        """Take the predictions of one answer without waiting; all are dropped where not all have room."""
        count = len(answer.ids)
        with self._lock:
            room = self._depth + count <= self._capacity
            if room:
                self._queue.append(answer)
                self._depth += count
        if not room:
            self.metrics.dropped.inc(count)

    def waiting(self, ids: Iterable[str]) -> set[str]:
        """Return those of these predictions that are not written yet."""
        wanted = set(ids)
        with self._lock:
            return {name for answer in self._queue for name in answer.ids if name in wanted}

    def _run(self) -> None:
        pause = 0.0  # the tables are made at once
        while True:
            stopping = self._stop.wait(pause)
            try:
                self._work()
                self._say(None)
                pause = FLUSH_SECONDS
            except Exception as err:  # pylint: disable=broad-exception-caught # whatever it is, it is tried again
                self._say(err)
                pause = RETRY_SECONDS
            if stopping and not self._queue:
                return
            if stopping:
                time.sleep(FLUSH_SECONDS)  # `close` waits for as long as it wants to

    def _work(self) -> None:
        if self._inserter is None:
            prepare(self.engine)
            self._inserter = Inserter(self.engine, predictions)
        while self._write(self._next(), self._inserter) >= ROWS:
            pass
        if time.monotonic() >= self._expire_at:
            expire(self.engine, datetime.now(UTC) - self._retention)
            self._expire_at = time.monotonic() + EXPIRE_SECONDS

    def _write(self, part: list[Answer], inserter: Inserter) -> int:
        """Write answers in one transaction, take them off the queue, and return how many rows they made."""
        if not part:
            return 0
        new = [row for answer in part for row in rows(answer)]
        with self.engine.begin() as connection:
            inserter.insert(connection, new)  # again, if the commit of a connection that broke had succeeded
        count = sum(len(answer.ids) for answer in part)
        with self._lock:
            for _ in part:
                self._queue.popleft()
            self._depth -= count
        self.metrics.written.inc(count)
        return count

    def _next(self) -> list[Answer]:
        """Return the oldest answers, about as many as fit in one transaction."""
        part: list[Answer] = []
        count = 0
        with self._lock:
            for answer in self._queue:
                part.append(answer)
                count += len(answer.ids)
                if count >= ROWS:
                    break
        return part

    def _say(self, err: Exception | None) -> None:
        """Keep the metrics true, and log when the database goes and when it comes back."""
        self.metrics.up.set(err is None)
        self.metrics.depth.set(self._depth)
        if err and self._up:
            log.error(
                "the journal is not written, predictions wait in the queue: %s", (str(err) or repr(err)).splitlines()[0]
            )
        elif not err and not self._up:
            log.info("the journal is written again")
        self._up = err is None


def expire(engine: Engine, before: datetime) -> None:
    """Delete predictions made before a time, with their outcomes, in small transactions."""
    old = select(predictions.c.id).where(predictions.c.created_at < before).limit(ROWS)
    while True:
        with engine.begin() as connection:
            ids = connection.scalars(old).all()
            connection.execute(delete(outcomes).where(outcomes.c.prediction_id.in_(ids)))
            connection.execute(delete(predictions).where(predictions.c.id.in_(ids)))
        if len(ids) < ROWS:
            return
