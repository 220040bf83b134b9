"""The fast path: an ASGI application in front of FastAPI and its middleware, which answers plain, valid predictions.

FastAPI and app/api/edge/middleware.py take twice the time of the prediction itself. A request that is not plain or not
valid, or that may have to be refused, goes to them unchanged: they answer, count and record it.
"""

from __future__ import annotations

import logging
from time import perf_counter

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from app.api.answers import json_single
from app.api.edge.bodies import LARGE, REQUEST
from app.api.edge.middleware import ID_HEADER, SECURITY_HEADERS, Keys, id_of
from app.api.predictor import Predictor
from app.batches.received import KEPT
from app.metrics import HttpMetrics
from app.model.served import ServedModel

PATH = "/predict"
JSON = b"application/json"

log = logging.getLogger("app.http")


class FastPath:
    """The application that the server calls; it shares the state of FastAPI's application."""

    def __init__(self, app: FastAPI) -> None:
        self.app, self.state = app, app.state
        self.predictor: Predictor = app.state.predictor
        self.metrics: HttpMetrics = app.state.metrics.http
        self.keys = Keys(app.state.settings)
        self.max_in_progress: int = app.state.settings.max_in_progress
        self.paths = {PATH, app.state.settings.root_path + PATH}
        self._constant: tuple[ServedModel | None, list[tuple[bytes, bytes]]] = None, []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a plain, valid prediction, or hand the request over."""
        started = perf_counter()
        served: ServedModel | None = self.state.served
        if served is None or not self._is_plain(scope):
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        one_of_each = len(headers) == len(scope["headers"])
        if headers.get(b"content-type") != JSON or not one_of_each or not self.keys.admit(headers):
            await self.app(scope, receive, send)
            return
        message = _message_at_hand(receive)
        if message is None:
            await self.app(scope, receive, send)
            return
        body: bytes = message.get("body", b"")
        if message.get("more_body") or len(body) > LARGE:
            await self.app(scope, _replay(message, receive), send)
            return
        try:
            request = REQUEST.validate_json(body)
            validated = perf_counter()
            predictions = self.predictor.compute(served, request, received=body if len(body) <= KEPT else b"")
            seconds = perf_counter() - validated
            content = json_single(predictions)
        except Exception:  # pylint: disable=broad-exception-caught # FastAPI fails alike, and reports it
            await self.app(scope, _replay(message, receive), send)
            return
        self.predictor.record(predictions, seconds)
        self.metrics.request(PATH, "POST", "2xx", perf_counter() - started)
        answer_headers = [(b"content-length", b"%d" % len(content)), (ID_HEADER, id_of(headers))]
        answer_headers += self._constant_headers(served)
        await send({"type": "http.response.start", "status": 200, "headers": answer_headers})
        await send({"type": "http.response.body", "body": content})

    def _is_plain(self, scope: Scope) -> bool:
        """Return whether a request is a plain prediction and the service accepts all requests at present.

        Otherwise FastAPI's middleware refuses the request, logs it, or adds headers to its response.
        """
        return (
            scope["type"] == "http"
            and scope["path"] in self.paths
            and scope["method"] == "POST"
            and not scope["query_string"]
            and not self.state.draining
            and self.state.in_progress < self.max_in_progress
            and not log.isEnabledFor(logging.DEBUG)
        )

    def _constant_headers(self, served: ServedModel) -> list[tuple[bytes, bytes]]:
        """Return the headers that all responses of a model have; they are made once for each model."""
        if self._constant[0] is not served:
            self._constant = served, [(b"content-type", JSON), served.header, *SECURITY_HEADERS]
        return self._constant[1]


def _message_at_hand(receive: Receive) -> Message | None:
    """Return the first message of a request if the server has it already, otherwise None.

    The coroutine is advanced by hand and closed where it would wait: nothing is lost, as it has received nothing. To
    await it needs a time limit, and `asyncio.timeout` takes 12 µs, a tenth of the time of a prediction.
    """
    waiting = receive().__await__()
    try:
        next(waiting)
    except StopIteration as done:
        message: Message = done.value
        return message
    waiting.close()
    return None


def _replay(message: Message, receive: Receive) -> Receive:
    """Return a receive channel that yields this message before new ones."""
    waiting = [message]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
