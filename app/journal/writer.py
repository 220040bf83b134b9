"""The journal's writer: a queue of predictions, and the thread that writes them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Table, event, select

from app.journal.database import ROWS, committed, connect, expire, first_line, predictions, prepare_on
from app.journal.files import main_file
from app.metrics import JournalMetrics
from app.model.prediction import Predictions
from app.settings import Settings

FLUSH_SECONDS = 0.02
VERIFY_SECONDS = 1.0
"""Time between two checks that the database holds what was written; a new connection is checked at once."""
RETRY_SECONDS = 1.0
HUNG_SECONDS = 10.0
"""Time after which a writer that has not finished its turn counts as down."""
CLOSE_SECONDS = 5.0
EXPIRE_SECONDS = 3600.0
STEP_ROWS = 100

log = logging.getLogger("app.journal")


def rows(batch: Predictions) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the table `predictions`."""
    created, served = datetime.fromtimestamp(batch.created, UTC), batch.served
    parts = zip(batch.ids, batch.rows, batch.probabilities, batch.requests, strict=True)
    for name, row, probability, request in parts:
        yield name, created, served.version, probability, served.bundle.values(row), request


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


class Witness:
    """What shows that a database was removed, replaced or restored: its file, and a row that would be gone."""

    def __init__(self, retention: timedelta) -> None:
        self._retention = retention
        self._rows: list[tuple[str, datetime]] = []
        """Ids and times of the newest row at the last check, and of the one that was written last."""
        self._file: Any = None

    def wrote(self, batch: Predictions) -> None:
        """Remember a row that was written."""
        self._rows = [*self._rows[:1], (batch.ids[0], datetime.fromtimestamp(batch.created, UTC))]

    def holds(self, connection: Connection) -> bool:
        """Return whether the file is the same and the rows are there, or have expired; remember the newest row."""
        own, created = predictions.c.id, predictions.c.created_at
        oldest = datetime.now(UTC) - self._retention + timedelta(seconds=EXPIRE_SECONDS)
        ids, file = {name for name, time in self._rows if time > oldest}, self._file
        newest = connection.execute(select(own, created).order_by(created.desc()).limit(1))
        self._rows, self._file = [(row[0], row[1]) for row in newest], main_file(connection.info)
        there = set(connection.scalars(select(own).where(own.in_(ids)))) if ids else ids
        return file in (None, self._file) and there == ids


class Journal:  # pylint: disable=too-many-instance-attributes # queue, database and thread
    """A bounded queue of predictions, and the thread that writes them.

    A slow or unavailable database never delays a request: predictions wait in the queue; when it is full, they are
    dropped and counted. Writing resumes when the database is available again. A database that was removed or replaced
    is noticed at the next flush: its tables are created, and what was written to the former one is counted as lost.
    """

    def __init__(self, settings: Settings, metrics: JournalMetrics) -> None:
        self.engine, self.metrics = connect(settings.journal_url), metrics
        self._capacity, self._retention = settings.journal_queue, timedelta(days=settings.journal_retention_days)
        self._queue: deque[Predictions] = deque()
        self._depth = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._inserter, self._witness = Inserter(self.engine, predictions), Witness(self._retention)
        self._held = 0
        """Predictions that this process has written to the present database."""
        self._opened, self._error = False, ""
        self._verify_at = self._expire_at = 0.0
        self._turned = time.monotonic()
        event.listen(self.engine, "connect", lambda *_: setattr(self, "_verify_at", 0.0))
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
            self.metrics.depth.set(self._depth)
            if time.monotonic() - self._turned > HUNG_SECONDS:  # the writer itself cannot report that it is held up
                self.metrics.up.set(0)

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
                self._report("")
                pause = FLUSH_SECONDS
            except Exception as err:  # pylint: disable=broad-exception-caught # retried after any error
                self._report(first_line(err))
                self._verify_at, pause = 0.0, RETRY_SECONDS
                self.engine.dispose()  # connections to a former primary, or with pages of a damaged file
            if stopping and not self._queue:
                return
            if stopping:
                time.sleep(FLUSH_SECONDS)  # `close` limits the time

    def _work(self) -> None:
        while self._flush() >= ROWS:
            pass
        if time.monotonic() >= self._expire_at:
            expire(self.engine, datetime.now(UTC) - self._retention)
            self._expire_at = time.monotonic() + EXPIRE_SECONDS

    def _flush(self) -> int:
        """Write the oldest predictions in one transaction, remove them from the queue, and return their number."""
        part = self._next()
        if not part and time.monotonic() < self._verify_at:
            return 0
        new = [row for batch in part for row in rows(batch)]
        with self.engine.connect() as connection:
            if time.monotonic() >= self._verify_at:
                self._verify(connection)
            with committed(connection):  # may repeat rows, if a commit succeeded on a connection that then broke
                self._inserter.insert(connection, new)
        with self._lock:
            for _ in part:
                self._queue.popleft()
            self._depth -= len(new)
        if part:
            self._witness.wrote(part[0])
        self._held += len(new)
        self.metrics.written.inc(len(new))
        return len(new)

    def _verify(self, connection: Connection) -> None:
        """Create missing tables; count and log that the database is not the one that was written before."""
        with committed(connection):
            created = prepare_on(connection)
            kept = self._witness.holds(connection)
        if self._opened and (created or not kept):
            self.metrics.replaced.inc()
            self.metrics.lost.inc(self._held)
            text = (
                "the journal at %r was removed or replaced, and is opened anew; this process had written %d predictions"
            )
            log.error(text, self.engine.url, self._held)
            self._held = 0
        self._opened, self._verify_at = True, time.monotonic() + VERIFY_SECONDS

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

    def _report(self, error: str) -> None:
        """Update the metrics; log each new error, and that the database is available again."""
        self._turned = time.monotonic()
        self.metrics.up.set(not error)
        self.metrics.depth.set(self._depth)
        if error and error != self._error:
            text = "the journal at %r is unavailable, predictions wait in the queue: %s"
            log.error(text, self.engine.url, error)
        elif not error and self._error:
            log.info("the journal is written again")
        self._error = error
