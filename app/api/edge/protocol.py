"""uvicorn's HTTP protocol with limits on what precedes a request; app/api/edge/middleware.py limits the rest.

uvicorn waits for the end of a head without a limit of time or size, and ignores a request that offers another protocol.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.edge import problem_details

HEAD_SECONDS = 10
HEAD_BYTES = 64 << 10
"""Counted are the pieces of data after the one in which a head starts, so a head in one piece may be longer."""
PIPELINED = 1000
"""Requests that may wait for their turn on a connection; uvicorn alone goes on reading them after each response."""
_NOWHERE: Any = deque(maxlen=0)


def problem(status: int, detail: str) -> bytes:
    """Return a response, as bytes, to a request that cannot be parsed."""
    response = problem_details.response(status, detail, {"connection": "close"})
    head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
    return STATUS_LINE[status] + head + b"\r\n" + bytes(response.body)


_TOO_LONG = problem(431, "The request line and headers are too long.")


class Protocol(HttpToolsProtocol):
    """Closes a connection whose request line and headers are too long, or late even if bytes keep trickling in.

    An offer to change the protocol (`Upgrade: h2c`, which Java's HttpClient sends by default) is declined, as RFC 9110
    allows: the request is answered as HTTP/1.1. The parser ends at such a head and takes what follows for the other
    protocol, so the head is parsed again without its Upgrade header, and then the body.
    """

    _timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0
    _data = b""

    def connection_made(self, transport: Any) -> None:
        """Start the timer of a new connection."""
        super().connection_made(transport)
        self._set_timer(True)

    def data_received(self, data: bytes) -> None:
        """Start the timer of the next request on the connection, unless its headers arrived in one piece."""
        self._data = data
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if len(self.pipeline) > PIPELINED:
            self.transport.close()
        elif self._in_head and self._head_bytes > HEAD_BYTES:
            self.transport.write(_TOO_LONG)
            self.transport.close()
        elif self._in_head and self._timer is None:
            self._set_timer(True)

    def on_message_begin(self) -> None:
        """Record that headers are being received."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Stop the timer; start the request, without the trailers that may follow, unless its head is parsed again."""
        self._in_head, self._head_bytes = False, 0
        self._set_timer(False)
        if not self._upgrades():
            super().on_headers_complete()
            self.headers = _NOWHERE

    def on_message_complete(self) -> None:
        """End the body, unless only the head of an upgrade has been parsed."""
        if not self._upgrades():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Start the timer if the rest of a body, of a request that was refused early, is still to come."""
        super().on_response_complete()
        if self.cycle.more_body:
            self._set_timer(True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._set_timer(False)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not HTTP, as problem details."""
        self.transport.write(problem(400, msg))
        self.transport.close()

    def _set_timer(self, on: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close) if on else None

    def _upgrades(self) -> bool:
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _unsupported_upgrade_warning(self) -> None:
        """Parse the request as HTTP/1.1; uvicorn calls this while it handles httptools' HttpParserUpgrade."""
        upgrade = sys.exception()
        if not isinstance(upgrade, httptools.HttpParserUpgrade) or not self._upgrades():
            return
        lines = [self.parser.get_method() + b" " + self.url + b" HTTP/1.1"]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        rest = self._data[upgrade.args[0] :]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", rest]))
