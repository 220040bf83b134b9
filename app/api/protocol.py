"""uvicorn's HTTP protocol with a time limit for request headers; app/api/budget.py limits the rest of a request."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10


class HeadTimeout(HttpToolsProtocol):
    """Closes a connection whose request line and headers do not arrive in time, even if bytes keep trickling in."""

    _head: asyncio.TimerHandle | None = None
    _in_head = False

    def connection_made(self, transport: Any) -> None:
        """Start the timer of a new connection."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Start the timer of the next request on the connection, unless its headers arrived in one piece."""
        super().data_received(data)
        if self._in_head and self._head is None:
            self._wait()

    def on_message_begin(self) -> None:
        """Record that headers are being received."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Stop the timer."""
        self._in_head = False
        self._stop()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._head = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None
