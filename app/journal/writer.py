"""The journal's writer: a queue of predictions, and the thread that writes them.

A request must not depend on the database: it adds to a queue in memory, and a lost prediction is counted, not retried
by the client. One thread writes, as one block per thousand rows is cheaper than a row per request, and a second writer
would only wait for the database's lock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, event

from app.addresses import without_password
from app.journal.blocks import block, joins, layout
from app.journal.database import address, committed, connect, expire, first_line, prepare_on, upsert
from app.journal.tables import blocks, layouts
from app.metrics import JournalMetrics
from app.model.prediction import Predictions
from app.settings import Settings

FLUSH_SECONDS = 0.05
ROWS = 1000
"""Predictions per block, not counting those that follow in the same request."""
VERIFY_SECONDS = 1.0
"""Time between two checks that the database holds what was written; a new connection is checked at once."""
RETRY_SECONDS = 1.0
HUNG_SECONDS = 10.0
"""Time after which a writer that has not finished its turn counts as down."""
CLOSE_SECONDS = 5.0
EXPIRE_SECONDS = 3600.0

log = logging.getLogger("app.journal")


class Journal:  # pylint: disable=too-many-instance-attributes # queue, database and thread
    """A bounded queue of predictions, and the thread that writes them.

    A slow or unavailable database never delays a request: predictions wait in the queue; when it is full, they are
    dropped and counted. Writing resumes when the database is available again. A database that was removed or replaced
    is detected at the next flush: its tables are created, and the rows of the former one are counted as lost.
    """

    def __init__(self, settings: Settings, metrics: JournalMetrics) -> None:
        self.engine, self.metrics = connect(settings.journal_url), metrics
        self._capacity, self._retention = settings.journal_queue, timedelta(days=settings.journal_retention_days)
        self._queue: deque[Predictions] = deque()
        self._depth = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._part: list[Predictions] = []
        """The oldest predictions, which are written next; the same again after an error."""
        self._identity: tuple[Any, ...] = ()
        self._held = 0
        """Predictions that this process has written to the database of `_identity`."""
        self._error = ""
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
                pause = 0.0 if self._flush() else FLUSH_SECONDS
                if time.monotonic() >= self._expire_at:
                    expire(self.engine, datetime.now(UTC) - self._retention)
                    self._expire_at = time.monotonic() + EXPIRE_SECONDS
                self._report("")
            except Exception as err:  # pylint: disable=broad-exception-caught # retried after any error
                self._report(first_line(err))
                self._verify_at, pause = 0.0, RETRY_SECONDS
                self.engine.dispose()  # connections to a former primary, or with pages of a damaged file
            if stopping and not self._queue:
                return
            if stopping and pause:
                time.sleep(FLUSH_SECONDS)  # `close` limits the time

    def _flush(self) -> bool:
        """Write the oldest predictions as a block, remove them from the queue, return whether others had to wait."""
        waiting = len(self._queue)
        self._part = part = self._part or self._next()
        if not part and time.monotonic() < self._verify_at:
            return False
        with self.engine.connect() as connection:  # another database may be found here, and has to be verified
            if time.monotonic() >= self._verify_at:
                self._verify(connection)
            if part:
                self._write(connection, part)
        return 0 < len(part) < waiting

    def _write(self, connection: Connection, part: list[Predictions]) -> None:
        """Write a block; it may have been written, if a commit succeeded on a connection that then broke."""
        row = block(part)
        with committed(connection):
            connection.execute(upsert(connection, layouts).on_conflict_do_nothing(), layout(part[0].served.bundle))
            connection.execute(upsert(connection, blocks).on_conflict_do_nothing(), row)
        with self._lock:
            for _ in part:
                self._queue.popleft()
            self._depth -= row["rows"]
        self._part = []
        self._held += row["rows"]
        self.metrics.written.inc(row["rows"])

    def _verify(self, connection: Connection) -> None:
        """Create missing tables; count and log a database that has replaced the former one."""
        identity = prepare_on(connection)
        if self._identity and identity != self._identity:
            self.metrics.replaced.inc()
            self.metrics.lost.inc(self._held)
            text = "the journal at %r was removed or replaced; this process had written %d predictions to it"
            log.error(text, address(self.engine), self._held)
            self._held = 0
        self._identity, self._verify_at = identity, time.monotonic() + VERIFY_SECONDS

    def _next(self) -> list[Predictions]:
        """Return the oldest predictions of one version and about one moment, a block's worth."""
        part: list[Predictions] = []
        rows = 0
        with self._lock:
            for batch in self._queue:
                if part and not joins(batch, part[0]):
                    break
                part.append(batch)
                rows += len(batch.ids)
                if rows >= ROWS:
                    break
        return part

    def _report(self, error: str) -> None:
        """Update the metrics; log each new error, and that the database is available again."""
        self._turned = time.monotonic()
        self.metrics.up.set(not error)
        self.metrics.depth.set(self._depth)
        if error and error != self._error:
            text = "the journal at %r is unavailable, predictions wait in the queue: %s"
            log.error(text, address(self.engine), without_password(error))
        elif not error and self._error:
            log.info("the journal is written again")
        self._error = error
