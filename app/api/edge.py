"""The outermost middleware: request ids, limits, API keys, response headers and the access log."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Mapping

from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problem_details
from app.api.budget import Budget
from app.logs import request_id
from app.metrics import HttpMetrics
from app.model.prediction import new_id
from app.settings import Settings

MAX_BODY = 1 << 20
MAX_BODIES = {"/predict/batch": 8 << 20, "/v2/models/": 2 << 20}
"""By the beginning of the path: 10,000 requests of maximum length have 6 MB as Arrow, 1,000 of them 1.5 MB as JSON."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
READY = ("/readyz", "/v2/health/ready")
HEALTH = ("/livez", "/v2/health/live", *READY, "/metrics")
DOCS = ("/docs", "/openapi.json", "/static-offline-docs")
PAGE = "/page/static/"
ID_HEADER = b"x-request-id"
KEY_HEADER = b"x-api-key"
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
DOCS_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data:; frame-ancestors 'none'",
    ),
]
PAGE_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
    ),
]

_CLIENT_ID = re.compile(rb"[A-Za-z0-9-]{1,64}")
log = logging.getLogger("app.http")


def headers_of(path: str) -> list[tuple[bytes, bytes]]:
    """Return the security headers of a response."""
    if path == "/" or path.startswith(PAGE):
        return PAGE_HEADERS
    return DOCS_HEADERS if path.startswith(DOCS) else SECURITY_HEADERS


def id_of(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the id of a request: the client's if it is plain, otherwise a new one."""
    given = headers.get(ID_HEADER, b"")
    return given if _CLIENT_ID.fullmatch(given) else new_id().encode()


class Keys:
    """The API keys, of which the settings have the digests."""

    def __init__(self, settings: Settings) -> None:
        self._digests = [bytes.fromhex(digest) for digest in settings.api_keys]

    def admit(self, headers: Mapping[bytes, bytes]) -> bool:
        """Return whether a request has one of the keys, or none is needed; the time does not depend on the key."""
        if not self._digests:
            return True
        digest = hashlib.sha256(headers.get(KEY_HEADER, b"")).digest()
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


class Refused(HTTPException):
    """A rejected request; `reason` is the label of its metric."""

    def __init__(self, status: int, reason: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.reason = reason


class Edge:
    """The outermost middleware, applied to every route."""

    def __init__(self, app: ASGIApp, state: State, allowed: dict[str, str]) -> None:
        """Wrap the application with this state; `allowed` maps the path of each route to its Allow header."""
        self.app, self.state, self.allowed = app, state, allowed
        self.patterns = {path: compile_path(path)[0] for path in allowed if "{" in path}
        self.settings: Settings = state.settings
        self.metrics: HttpMetrics = state.metrics.http
        self.keys = Keys(self.settings)
        self.budget = Budget(self.settings.request_seconds)
        self.in_progress, self.root = 0, self.settings.root_path
        self.unready = ""  # the reason of the last 503 of /readyz that was logged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or reject it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(self, scope, receive, send)
        token = request_id.set(exchange.id.decode())
        counted = not exchange.path.startswith(HEALTH)
        self.in_progress += counted
        self.metrics.in_progress.inc(counted)
        try:
            if refused := self._refused(exchange):
                await self._refuse(exchange, refused)
            else:
                await self._serve(exchange)
        finally:
            self.in_progress -= counted
            self.metrics.in_progress.dec(counted)
            request_id.reset(token)
        if exchange.status >= 400 or log.isEnabledFor(logging.DEBUG):
            exchange.log()

    def _refused(self, exchange: Exchange) -> Refused | None:
        """Return the rejection of a request, None if it is accepted."""
        path = exchange.path
        if exchange.method not in METHODS:
            return Refused(405, "method", "This method is not allowed here.")
        if path.startswith(HEALTH):
            return None
        if self.in_progress > self.settings.max_in_progress:
            detail = f"More than {self.settings.max_in_progress} requests are in progress."
            return Refused(503, "too_many_in_progress", detail, {"Retry-After": "1"})
        if headers_of(path) is SECURITY_HEADERS and not self.keys.admit(exchange.headers):
            detail = "X-API-Key is missing or invalid."
            return Refused(401, "unauthorized", detail, {"WWW-Authenticate": "X-API-Key"})
        length = exchange.headers.get(b"content-length", b"")
        return exchange.too_large() if length.isdigit() and int(length) > exchange.max_body else None

    def route(self, path: str) -> str:
        """Return the path of the route that matches, `none` if there is none."""
        if path in self.allowed:
            return path
        return next((route for route, pattern in self.patterns.items() if pattern.match(path)), "none")

    async def _refuse(self, exchange: Exchange, why: Refused) -> None:
        self.metrics.rejected.labels(why.reason).inc()
        if why.reason != "method":  # clients could create any number of label values
            self.metrics.request(
                self.route(exchange.path), exchange.scope["method"], f"{why.status_code // 100}xx", exchange.seconds()
            )
        await exchange.respond(why.status_code, why.detail, why.headers)

    async def _serve(self, exchange: Exchange) -> None:
        """Call the application; it counts the request, including one that is cancelled here."""
        task = self.budget.start()
        try:
            await self.app(exchange.scope, exchange.receive, exchange.send)
            self.budget.end(task)
        except (Exception, asyncio.CancelledError) as err:  # pylint: disable=broad-exception-caught # none may get out
            late = self.budget.end(task)
            if isinstance(err, asyncio.CancelledError) and not late:
                raise  # the server is shutting down
            if late:
                self.metrics.rejected.labels("timeout").inc()
            else:
                log.exception("unhandled error in %s %s", exchange.method, exchange.path)
            if exchange.status:
                raise err  # the response has started: the server can only close the connection
            if late:
                detail = f"The request took more than {self.settings.request_seconds:g} seconds."
                await exchange.respond(504, detail, {"Connection": "close"})  # the client may still be sending the body
            else:
                await exchange.respond(500, problem_details.FAILED)


def _limit(path: str) -> int:
    """Return the largest body of a path, bytes."""
    return next((most for start, most in MAX_BODIES.items() if path.startswith(start)), MAX_BODY)


class Exchange:
    """One request and its response."""

    def __init__(self, edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
        self.edge, self.scope, self._receive, self._send = edge, scope, receive, send
        self.path, self.method = scope["path"], scope["method"]
        if edge.root or self.method == "HEAD":
            self._adapt()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.started = time.perf_counter()
        self.status = 0
        self.received, self.max_body = 0, _limit(self.path)
        self.id = id_of(self.headers)

    def _adapt(self) -> None:
        """Call the application with GET for HEAD, whose body the server omits, and with the prefix in the path.

        Some proxies strip the prefix and some do not; ASGI's path includes it.
        """
        self.path = self.path.removeprefix(self.edge.root) if self.path.startswith(f"{self.edge.root}/") else self.path
        method = "GET" if self.method == "HEAD" else self.method
        self.scope = {**self.scope, "method": method, "root_path": self.edge.root, "path": self.edge.root + self.path}

    async def receive(self) -> Message:
        """Receive a part of the body; raise Refused if the body is too large."""
        if self.received <= self.max_body:
            message = await self._receive()
            self.received += len(message.get("body", b""))
            if self.received <= self.max_body:
                return message
            self.edge.metrics.rejected.labels("body_too_large").inc()
        raise self.too_large()

    def too_large(self) -> Refused:
        """Return the rejection of a body that is too large."""
        return Refused(413, "body_too_large", f"The body has more than {self.max_body} bytes.")

    async def respond(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """Send problem details."""
        more = problem_details.inference_error(self.scope, detail)
        await problem_details.response(status, detail, headers, **more)(self.scope, self.receive, self.send)

    async def send(self, message: Message) -> None:
        """Send a message; add the common response headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message["headers"])
            headers += headers_of(self.path)
            if self.status == 405:  # FastAPI's routes do not list HEAD
                allowed = self.edge.allowed.get(self.edge.route(self.path), "GET, HEAD, POST").encode()
                headers = [header for header in headers if header[0] != b"allow"] + [(b"allow", allowed)]
            headers.append((ID_HEADER, self.id))
            if self.edge.state.draining:
                headers.append((b"connection", b"close"))
            message["headers"] = headers
        await self._send(message)

    def seconds(self) -> float:
        """Return the seconds since the request started."""
        return time.perf_counter() - self.started

    def log(self) -> None:
        """Log the request: errors of the server at ERROR, errors of the client at INFO, successes at DEBUG.

        503 is a state or an overload, not an error: WARNING, and for /readyz, which is polled, once for each reason.
        """
        levels = {2: logging.DEBUG, 3: logging.DEBUG, 4: logging.INFO}
        level = logging.WARNING if self.status == 503 else levels.get(self.status // 100, logging.ERROR)
        if self.status == 503 and self.path in READY:
            state = self.edge.state
            reason, self.edge.unready = self.edge.unready, "draining" if state.draining else state.reason
            if reason == self.edge.unready:
                return
        path = self.path[:200]  # the client's, of up to 64 kB
        extra = {"method": self.method, "path": path, "status": self.status, "ms": round(self.seconds() * 1000, 3)}
        log.log(level, "%s %s: %d", self.method, path, self.status, extra=extra)
