"""Calls an ASGI application in this process, as a server does that has received the whole request."""

from __future__ import annotations

import asyncio
from collections import deque
from urllib.parse import unquote

import httpx
from starlette.types import ASGIApp, Message

from app.api.application import create_app
from app.api.fast_path import FastPath
from app.interface import NAME
from app.model.bundles import Bundle
from app.model.served import ServedModel
from app.settings import Settings

JSON = {"Content-Type": "application/json"}


def make_service(bundle: Bundle | None, **settings: object) -> FastPath:
    """Return the service with a model as version 7, without a registry, and by default without a journal."""
    app = create_app(Settings.model_validate({"journal_url": "none"} | settings))
    if bundle is not None:
        app.state.served = ServedModel(NAME, "7", "production", None, bundle)
    return FastPath(app)


async def call(
    app: ASGIApp, method: str, target: str, headers: dict[str, str], pieces: list[bytes], complete: bool = True
) -> httpx.Response:
    """Return the response to one request, whose body is received in pieces; without `complete`, its end never comes."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in {"Host": "test", **headers}.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    incoming = deque({"type": "http.request", "body": part, "more_body": True} for part in pieces)
    incoming[-1]["more_body"] = not complete
    sent: list[Message] = []

    async def receive() -> Message:
        if not incoming:
            await asyncio.Event().wait()  # the client waits for its response
        return incoming.popleft()

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=content)


class Client:
    """A client of an application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def request(
        self, method: str, target: str, content: bytes | list[bytes] = b"", headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Return the response to one request; a list is received in pieces."""
        pieces = content if isinstance(content, list) else [content]
        return asyncio.run(call(self.app, method, target, headers or {}, pieces))

    def get(self, target: str) -> httpx.Response:
        """Return the response to GET."""
        return self.request("GET", target)

    def post(self, target: str, content: bytes | list[bytes], headers: dict[str, str] | None = None) -> httpx.Response:
        """Return the response to POST; the body is JSON unless the headers say otherwise."""
        return self.request("POST", target, content, JSON if headers is None else headers)

    def metric(self, series: str) -> float:
        """Return the value of a series, 0 if there is none."""
        lines = self.get("/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == series), 0.0)
