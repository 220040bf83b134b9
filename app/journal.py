"""The journal: predictions and their outcomes in SQLite or PostgreSQL, written by a background thread.

Rows are only inserted and expired, so the image contains no migration tool: the journal stores its schema version and
rejects a database with a different one. A change that adds a column raises the version and documents the migration of
older tables here; during a deployment the old and the new service write concurrently.
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
from app.model.prediction import Predictions
from app.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.dialects import postgresql, sqlite

SCHEMA = 2
FLUSH_SECONDS = 0.02
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 5.0
EXPIRE_SECONDS = 3600.0
ROWS = 500
"""Rows per transaction; small enough not to delay the requests of the same process."""
STEP_ROWS = 100

CONNECT: dict[str, dict[str, Any]] = {
    "sqlite": {"timeout": 1},
    "postgresql": {"connect_timeout": 3, "tcp_user_timeout": 5000, "options": "-c statement_timeout=5000"},
}
"""Timeouts by dialect: a database that does not respond counts as down."""

log = logging.getLogger("app.journal")


class JournalInvalid(OnTimeError):
    """The database has a journal with a different schema version."""


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
    """Return an engine for a journal; it connects on first use."""
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
            connection.execute("PRAGMA page_size = 16384")  # for a new file; a row has about 1 kB
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # commits survive a killed process

    return engine


def upsert(engine: Engine, table: Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insert statement of the dialect, which supports ON CONFLICT."""
    dialect = import_module(f"sqlalchemy.dialects.{engine.dialect.name}")  # importing both is slow
    return cast("sqlite.Insert | postgresql.Insert", dialect.insert(table))


def prepare(engine: Engine) -> None:
    """Create missing tables; raise JournalInvalid if the schema version differs."""
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
            f"the journal at {engine.url!r} has schema version {found}, this service needs {SCHEMA}: "
            "run the matching release, or set ONTIME_JOURNAL_URL to another database."
        )


def rows(batch: Predictions) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the table `predictions`."""
    created, served = datetime.fromtimestamp(batch.created, UTC), batch.served
    for name, row, probability in zip(batch.ids, batch.rows, batch.probabilities, strict=True):
        yield name, created, served.version, probability, served.bundle.values(row)


class Inserter:
    """Inserts many rows per statement: the driver releases and reacquires the GIL at each statement."""

    def __init__(self, engine: Engine, table: Table) -> None:
        dialect, columns = engine.dialect, table.columns
        mark = "?" if dialect.paramstyle == "qmark" else "%s"
        self._row = f"({', '.join([mark] * len(columns))})"
        self._head = f"INSERT INTO {table.name} ({', '.join(columns.keys())}) VALUES "
        self._converters = [column.type.dialect_impl(dialect).bind_processor(dialect) or _same for column in columns]

    def insert(self, connection: Connection, new: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows; existing ids are skipped."""
        for start in range(0, len(new), STEP_ROWS):
            part = new[start : start + STEP_ROWS]
            values = [convert(value) for row in part for convert, value in zip(self._converters, row, strict=True)]
            statement = f"{self._head}{', '.join([self._row] * len(part))} ON CONFLICT DO NOTHING"
            connection.exec_driver_sql(statement, tuple(values))


def _same(value: Any) -> Any:
    return value


class Journal:
    """A bounded queue of predictions, and the thread that writes them.

    A slow or unavailable database never delays a request: predictions wait in the queue; when it is full, they are
    dropped and counted. Writing resumes when the database is available again.
    """

    def __init__(self, settings: Settings, metrics: JournalMetrics) -> None:
        self.engine, self.metrics = connect(settings.journal_url), metrics
        self._capacity, self._retention = settings.journal_queue, timedelta(days=settings.journal_retention_days)
        self._queue: deque[Predictions] = deque()
        self._depth = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._inserter: Inserter | None = None
        self._up, self._expire_at = True, 0.0
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        metrics.capacity.set(self._capacity)

    def start(self) -> None:
        """Start the writer thread."""
        self._thread.start()

    def close(self) -> None:
        """Flush the queue for up to `CLOSE_SECONDS`; drop and count the rest."""
        self._stop.set()
        self._thread.join(CLOSE_SECONDS)
        if self._depth:
            log.error("the journal did not respond in time: %d predictions are lost", self._depth)
            self.metrics.dropped.inc(self._depth)
        self.engine.dispose()

    def record(self, batch: Predictions) -> None:
        """Queue predictions without blocking; if not all fit, drop and count all of them."""
        count = len(batch.ids)
        with self._lock:
            room = self._depth + count <= self._capacity
            if room:
                self._queue.append(batch)
                self._depth += count
        if not room:
            self.metrics.dropped.inc(count)

    def waiting(self, ids: Iterable[str]) -> set[str]:
        """Return the ids that are still in the queue."""
        wanted = set(ids)
        with self._lock:
            return {name for batch in self._queue for name in batch.ids if name in wanted}

    def _run(self) -> None:
        pause = 0.0  # create the tables immediately
        while True:
            stopping = self._stop.wait(pause)
            try:
                self._work()
                self._report(None)
                pause = FLUSH_SECONDS
            except Exception as err:  # pylint: disable=broad-exception-caught # retried after any error
                self._report(err)
                pause = RETRY_SECONDS
            if stopping and not self._queue:
                return
            if stopping:
                time.sleep(FLUSH_SECONDS)  # `close` limits the time

    def _work(self) -> None:
        if self._inserter is None:
            prepare(self.engine)
            self._inserter = Inserter(self.engine, predictions)
        while self._write(self._next(), self._inserter) >= ROWS:
            pass
        if time.monotonic() >= self._expire_at:
            expire(self.engine, datetime.now(UTC) - self._retention)
            self._expire_at = time.monotonic() + EXPIRE_SECONDS

    def _write(self, part: list[Predictions], inserter: Inserter) -> int:
        """Write predictions in one transaction, remove them from the queue, and return the number of rows."""
        if not part:
            return 0
        new = [row for batch in part for row in rows(batch)]
        with self.engine.begin() as connection:
            inserter.insert(connection, new)  # may repeat rows, if a commit succeeded on a connection that then broke
        count = sum(len(batch.ids) for batch in part)
        with self._lock:
            for _ in part:
                self._queue.popleft()
            self._depth -= count
        self.metrics.written.inc(count)
        return count

    def _next(self) -> list[Predictions]:
        """Return the oldest predictions, about one transaction's worth."""
        part: list[Predictions] = []
        count = 0
        with self._lock:
            for batch in self._queue:
                part.append(batch)
                count += len(batch.ids)
                if count >= ROWS:
                    break
        return part

    def _report(self, err: Exception | None) -> None:
        """Update the metrics; log when the database becomes unavailable and available."""
        self.metrics.up.set(err is None)
        self.metrics.depth.set(self._depth)
        if err and self._up:
            log.error(
                "the journal is unavailable, predictions wait in the queue: %s", (str(err) or repr(err)).splitlines()[0]
            )
        elif not err and not self._up:
            log.info("the journal is written again")
        self._up = err is None


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
