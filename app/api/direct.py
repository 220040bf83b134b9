"""Answers to single predictions in the server's protocol, without a task, ASGI messages and middleware.

The answer is that of `FastPath` inside `Edge`, with the same headers and body. A request that is not plain, not valid
or may have to be refused is handled by those.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from time import perf_counter

from starlette.datastructures import State

from app.api.bodies import LARGE
from app.api.edge import ID_HEADER, SECURITY_HEADERS, Keys, id_of
from app.api.fast_path import JSON, one
from app.model.prediction import Predictor
from app.model.served import ServedModel

PATH = "/predict"
Header = tuple[bytes, bytes]

log = logging.getLogger("app.http")


class Direct:
    """Answers plain, valid requests whose head and body arrived together."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.predictor: Predictor = state.predictor
        self.count = state.metrics.http.request
        self.keys = Keys(state.settings)
        self.urls = {PATH.encode(), f"{state.settings.root_path}{PATH}".encode()}
        self._of: tuple[ServedModel | None, Sequence[Header]] = None, ()
        self._head = b""

    def answer(self, headers: Sequence[Header], body: bytes, defaults: Sequence[Header]) -> bytes | None:
        """Return the whole response with the server's default headers, None if others have to handle the request."""
        started, served, state = perf_counter(), self.state.served, self.state
        given = dict(headers)
        if served is None or state.draining or len(body) > LARGE or given.get(b"content-type") != JSON:
            return None
        if log.isEnabledFor(logging.DEBUG) or not self.keys.admit(given):
            return None
        try:
            answer = one(self.predictor, served, body)
        except Exception:  # pylint: disable=broad-exception-caught # FastPath fails alike; Edge logs it, 500
            return None
        name = id_of(given)
        self.count(PATH, "POST", "2xx", perf_counter() - started)
        return b"%b%d\r\n%b: %b\r\n\r\n%b" % (self._start(served, defaults), len(answer), ID_HEADER, name, answer)

    def _start(self, served: ServedModel, defaults: Sequence[Header]) -> bytes:
        """Return the response until the value of Content-Length; the server replaces its headers every second."""
        if self._of[0] is not served or self._of[1] is not defaults:
            fixed = [*defaults, (b"content-type", JSON), served.header, *SECURITY_HEADERS]
            lines = b"".join([b"%b: %b\r\n" % header for header in fixed])
            self._of, self._head = (served, defaults), b"HTTP/1.1 200 OK\r\n" + lines + b"content-length: "
        return self._head
