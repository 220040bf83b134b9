"""The fast path of the prediction routes, without FastAPI's handling of bodies and responses.

It answers only plain, valid requests, with the same schema and the same `Answers` as the ordinary routes in
app/api/application.py, and passes everything else, errors included, unchanged to those routes.
"""

from __future__ import annotations

from time import perf_counter

from fastapi.concurrency import run_in_threadpool
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.schemas import Batch
from app.interface import Request
from app.model.prediction import Answers
from app.model.served import ServedModel

_REQUEST, _BATCH = TypeAdapter(Request), TypeAdapter(Batch)


class FastPath:
    """A middleware inside of `Edge`, so that ids, limits and headers are those of every route."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app, self.state, self.metrics = app, state, state.metrics.http
        self.answers: Answers = state.answers
        self.routes = {"/predict": self._one, "/predict/batch": self._batch}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a plain prediction request, or pass the request on."""
        served = self.state.served
        answer = self.routes.get(scope["path"]) if scope["type"] == "http" else None
        if answer is None or served is None or not _plain(scope):
            await self.app(scope, receive, send)
            return
        started, status = perf_counter(), "5xx"
        messages: list[Message] = []
        try:
            try:
                while not messages or messages[-1].get("more_body"):
                    messages.append(await receive())
                body = await answer(served, b"".join([message.get("body", b"") for message in messages]))
            except (ValidationError, HTTPException):
                status = ""
                await self.app(scope, _replay(messages, receive), send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": served.headers(len(body))})
            await send({"type": "http.response.body", "body": body})
            status = "2xx"
        finally:
            if status:
                self.metrics.request(scope["path"], "POST", status, perf_counter() - started)

    async def _one(self, served: ServedModel, body: bytes) -> bytes:
        return self.answers.single(served, _REQUEST.validate_json(body)).json().encode()

    async def _batch(self, served: ServedModel, body: bytes) -> bytes:
        def work() -> bytes:
            return self.answers.many(served, _BATCH.validate_json(body).rows).json_batch().encode()

        return await run_in_threadpool(work)


def _plain(scope: Scope) -> bool:
    return (
        scope["method"] == "POST"
        and not scope["query_string"]
        and (b"content-type", b"application/json") in scope["headers"]
    )


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """Return a receive channel that repeats these messages before new ones."""
    waiting = iter(messages)

    async def again() -> Message:
        return next(waiting, None) or await receive()

    return again
