"""uvicorn's HTTP protocol with limits on what precedes a request; app/api/budget.py and edge.py limit the rest."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.direct import Direct

HEAD_SECONDS = 10
HEAD_BYTES = 64 << 10
"""Counted are the pieces of data after the one in which a head starts, so a head in one piece may be longer."""
PIPELINED = 1000
"""Requests that may wait for their turn on a connection; uvicorn alone goes on reading them after each response."""
_NOWHERE: Any = deque(maxlen=0)


class Protocol(HttpToolsProtocol):
    """Closes a connection whose request line and headers are too long, or late even if bytes keep trickling in.

    An offer to change the protocol (`Upgrade: h2c`, which Java's HttpClient sends by default) is declined, as RFC 9110
    allows: the request is answered as HTTP/1.1. The parser ends at such a head and takes what follows for the other
    protocol, so the head is parsed again without its Upgrade header, and then the body.
    """

    _direct: Direct | None
    _held: list[tuple[bytes, bytes]] | None = None
    """Headers of a request that may be answered directly, while its body is parsed."""
    _head: asyncio.TimerHandle | None = None
    _idle: asyncio.TimerHandle | None = None
    _answered = 0.0
    _in_head = False
    _head_bytes = 0
    _data = _body = b""

    def connection_made(self, transport: Any) -> None:
        """Start the timer of a new connection."""
        super().connection_made(transport)
        self._direct = self.app_state.get("direct")
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Start the timer of the next request on the connection, unless its headers arrived in one piece."""
        self._data = data
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._held is not None:  # the rest of the body is still to come
            self._begin()
        if len(self.pipeline) > PIPELINED:
            self.transport.close()
        elif self._in_head and not self.transport.is_closing():
            if self._head is None:
                self._wait()
            if self._head_bytes > HEAD_BYTES:
                self._reject()

    def on_message_begin(self) -> None:
        """Record that headers are being received."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Stop the timer; start the request, without the trailers that may follow, unless its head is parsed again."""
        self._in_head, self._head_bytes = False, 0
        self._stop()
        if self._upgrades():
            return
        if self._may_be_direct():
            self._held, self._body = self.headers, b""
        else:
            super().on_headers_complete()
        self.headers = _NOWHERE

    def on_body(self, body: bytes) -> None:
        """Add a part of the body."""
        if self._held is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        """Answer the request directly or end its body, unless only the head of an upgrade has been parsed."""
        if self._upgrades():
            return
        if self._held is not None:
            if self._answer(self._held):
                return
            self._begin()
        super().on_message_complete()

    def _may_be_direct(self) -> bool:
        return (
            self._direct is not None
            and self.url in self._direct.urls
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.expect_100_continue
            and self._at_rest()
            and not self.flow.write_paused
            and not self.transport.is_closing()
        )

    def _answer(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Answer a request directly; return whether that was possible."""
        assert self._direct is not None
        if not self.parser.should_keep_alive():
            return False
        answer = self._direct.answer(headers, self._body, self.server_state.default_headers)
        if answer is None:
            return False
        self._held = None
        self.transport.write(answer)
        self.server_state.total_requests += 1
        self._answered = self.loop.time()
        if self._idle is None:
            self._idle = self.loop.call_later(self.timeout_keep_alive, self._close_idle)
        return True

    def _close_idle(self) -> None:
        """Close the connection if nothing came since the last direct answer; otherwise wait for the rest of the time.

        uvicorn sets and cancels a timer with each request; that of the other answers stays in charge where it is set.
        """
        self._idle = None
        rest = self._answered + self.timeout_keep_alive - self.loop.time()
        if rest > 0:
            self._idle = self.loop.call_later(rest, self._close_idle)
        elif self.timeout_keep_alive_task is None and self._head is None and self._at_rest():
            self.transport.close()

    def _at_rest(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _begin(self) -> None:
        """Start the request that was held."""
        body, self._held = self._body, None
        super().on_headers_complete()
        if body:
            super().on_body(body)

    def on_response_complete(self) -> None:
        """Start the timer if the rest of a body, of a request that was refused early, is still to come."""
        super().on_response_complete()
        if self.cycle.more_body:
            self._stop()
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop()
        if self._idle is not None:
            self._idle.cancel()
        super().connection_lost(exc)

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

    def _reject(self) -> None:
        head = b"content-type: text/plain\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[431] + head)
        self.transport.close()

    def _wait(self) -> None:
        self._head = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None
