"""The fast path of the prediction routes, which bypasses FastAPI.

It handles plain, valid requests only, with the same schema and the same `Predictor` as the ordinary routes in
app/api/application.py. All other requests, including invalid ones, are passed to those routes unchanged.
"""

from __future__ import annotations

from time import perf_counter

from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.bodies import BATCH, LARGE, REQUEST
from app.interface import ROWS
from app.model.prediction import Predictor
from app.model.served import ServedModel

JSON = b"application/json"
KEPT = 4096
"""Bytes per request up to which the journal gets it as it was received, which needs no time and limits the queue."""
_ROWS = f'"{ROWS}"'.encode()
_read_one, _read_batch = REQUEST.validate_json, BATCH.validate_json


class FastPath:
    """A middleware inside `Edge`, which applies request ids, limits and headers."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app, self.state, self.metrics = app, state, state.metrics.http
        self.predictor: Predictor = state.predictor
        self.root: str = state.settings.root_path
        self.routes = {f"{self.root}/predict": self._one, f"{self.root}/predict/batch": self._batch}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a plain prediction request, or pass the request on."""
        served = self.state.served
        handler = self.routes.get(scope["path"]) if scope["type"] == "http" else None
        if handler is None or served is None or not _plain(scope):
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
                body = await handler(served, content) if whole else None
            except (ValidationError, HTTPException):
                body = None
            if body is None:
                status = ""
                await self.app(scope, _replay(messages, receive), send)
                return
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [*served.headers, (b"content-length", b"%d" % len(body))],
                }
            )
            await send({"type": "http.response.body", "body": body})
            status = "2xx"
        finally:
            if status:
                self.metrics.request(scope["path"].removeprefix(self.root), "POST", status, perf_counter() - started)

    async def _one(self, served: ServedModel, body: bytes) -> bytes | None:
        return one(self.predictor, served, body) if len(body) <= LARGE else None

    async def _batch(self, served: ServedModel, body: bytes) -> bytes | None:
        def work() -> bytes | None:
            if not BATCH.ordinary(body):
                return None
            rows = _read_batch(body).rows
            return self.predictor.many(served, rows, received=_objects(body, len(rows))).json_batch()

        return await run_in_threadpool(work)


def one(predictor: Predictor, served: ServedModel, body: bytes) -> bytes:
    """Return the response to the body of one request; raise ValidationError if it is invalid."""
    return predictor.single(served, _read_one(body), received=body if len(body) <= KEPT else b"").json()


def _plain(scope: Scope) -> bool:
    return scope["method"] == "POST" and not scope["query_string"] and (b"content-type", JSON) in scope["headers"]


def _objects(body: bytes, rows: int) -> bytes:
    """Return the rows of a valid batch as they were received; nothing if its key may be there twice, or for padding."""
    if len(body) > KEPT * rows or b"\\" in body or body.count(_ROWS) != 1:
        return b""
    return body[body.index(b"[") + 1 : body.rindex(b"]")].strip()


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """Return a receive channel that yields these messages before new ones."""
    waiting = iter(messages)

    async def again() -> Message:
        return next(waiting, None) or await receive()

    return again
