"""The fast path of the prediction routes, which bypasses FastAPI.

It handles plain, valid requests only, with the same readers and the same `Predictor` as the ordinary routes in
app/api/application.py. All other requests, including invalid ones, are passed to those routes unchanged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter

from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.batches import encoded
from app.api.bodies import LARGE, REQUEST, Invalid
from app.columns.batches import read_arrow, read_json
from app.columns.rows import Refused
from app.columns.stream import MEDIA_TYPE
from app.model.prediction import KEPT, Predictor, Received
from app.model.served import ServedModel

JSON, _ARROW = b"application/json", MEDIA_TYPE.encode()
_read_one = REQUEST.validate_json
Answer = tuple[bytes, bytes]
"""A body and its media type."""
Handler = Callable[[ServedModel, bytes, Scope], Awaitable[Answer | None]]


class FastPath:
    """A middleware inside `Edge`, which applies request ids, limits and headers."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app, self.state, self.metrics = app, state, state.metrics.http
        self.predictor: Predictor = state.predictor
        self.root: str = state.settings.root_path
        path, arrow, json = f"{self.root}/predict", partial(self._batch, read_arrow), partial(self._batch, read_json)
        self.routes: dict[str, dict[bytes, Handler]] = {
            path: {JSON: self._one},
            f"{path}/batch": {JSON: json, _ARROW: arrow},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a plain prediction request, or pass the request on."""
        served, handler = self.state.served, self._handler(scope)
        if handler is None or served is None:
            await self.app(scope, receive, send)
            return
        started, status = perf_counter(), "5xx"
        messages: list[Message] = []
        try:
            try:
                while not messages or messages[-1].get("more_body"):
                    messages.append(await receive())
                whole = messages[-1]["type"] == "http.request"  # or the client has disconnected
                content = b"".join([message.get("body", b"") for message in messages])
                answer = await handler(served, content, scope) if whole else None
            except (ValidationError, HTTPException, Invalid, Refused):
                answer = None
            if answer is None:
                status = ""
                await self.app(scope, _replay(messages, receive), send)
                return
            body, kind = answer
            headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), served.header]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            status = "2xx"
        finally:
            if status:
                self.metrics.request(scope["path"].removeprefix(self.root), "POST", status, perf_counter() - started)

    def _handler(self, scope: Scope) -> Handler | None:
        """Return the handler of a plain request: POST, without a query, of a media type that is written as usual."""
        handlers = self.routes.get(scope["path"]) if scope["type"] == "http" else None
        if handlers is None or scope["method"] != "POST" or scope["query_string"]:
            return None
        headers = scope["headers"]
        return next((handler for kind, handler in handlers.items() if (b"content-type", kind) in headers), None)

    async def _one(self, served: ServedModel, body: bytes, _: Scope) -> Answer | None:
        return (one(self.predictor, served, body), JSON) if len(body) <= LARGE else None

    async def _batch(self, read: Callable[[bytes], Received], served: ServedModel, body: bytes, scope: Scope) -> Answer:
        accept = next((value for name, value in scope["headers"] if name == b"accept"), b"").decode("latin-1")
        return await run_in_threadpool(lambda: encoded(self.predictor.batch(served, read(body)), accept))


def one(predictor: Predictor, served: ServedModel, body: bytes) -> bytes:
    """Return the response to the body of one request; raise ValidationError if it is invalid."""
    return predictor.single(served, _read_one(body), received=body if len(body) <= KEPT else b"").json()


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """Return a receive channel that yields these messages before new ones."""
    waiting = iter(messages)

    async def again() -> Message:
        return next(waiting, None) or await receive()

    return again
