"""What every request passes before FastAPI: each middleware has one job, and the request takes them in this order."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Mapping

from fastapi import FastAPI
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.routing import Route, compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.edge import problem_details
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
NOSNIFF, POLICY = (b"x-content-type-options", b"nosniff"), b"content-security-policy"
DOCS_POLICY = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"frame-ancestors 'none'"
)
PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
)
STRICT_POLICY = b"default-src 'none'; frame-ancestors 'none'"
SECURITY_HEADERS = [NOSNIFF, (b"cache-control", b"no-store"), (POLICY, STRICT_POLICY)]
DOCS_HEADERS = [NOSNIFF, (POLICY, DOCS_POLICY)]
PAGE_HEADERS = [NOSNIFF, (b"referrer-policy", b"no-referrer"), (POLICY, PAGE_POLICY)]
REASONS = {401: "unauthorized", 405: "method", 413: "body_too_large", 503: "too_many_in_progress"}
"""The label of a rejection's metric."""

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
    """The API keys; the settings hold their digests."""

    def __init__(self, settings: Settings) -> None:
        self._digests = [bytes.fromhex(digest) for digest in settings.api_keys]

    def admit(self, headers: Mapping[bytes, bytes]) -> bool:
        """Return whether a request has a valid key, or no key is required; the comparison takes constant time."""
        if not self._digests:
            return True
        digest = hashlib.sha256(headers.get(KEY_HEADER, b"")).digest()
        return sum(hmac.compare_digest(digest, known) for known in self._digests) > 0


def install(app: FastAPI) -> None:
    """Add the middleware; the last one added runs first."""
    routes = Routes(app)
    for middleware in (TimeLimit, Admission, Responses, Paths):
        app.add_middleware(middleware, state=app.state, routes=routes)


def path_of(scope: Scope) -> str:
    """Return the path of a request without the prefix."""
    path: str = scope["path"]
    return path.removeprefix(scope["root_path"])


async def respond(
    scope: Scope, receive: Receive, send: Send, status: int, detail: str, headers: Mapping[str, str] | None = None
) -> None:
    """Send problem details."""
    more = problem_details.inference_error(scope, detail)
    await problem_details.response(status, detail, headers, **more)(scope, receive, send)


class Routes:
    """The paths of the routes, and their methods."""

    def __init__(self, app: FastAPI) -> None:
        self._methods = {route.path: set(route.methods or ()) for route in app.routes if isinstance(route, Route)}
        self._patterns = {path: compile_path(path)[0] for path in self._methods if "{" in path}

    def name(self, path: str) -> str:
        """Return the path of the route that matches, `none` if there is none."""
        if path in self._methods:
            return path
        return next((route for route, pattern in self._patterns.items() if pattern.match(path)), "none")

    def allowed(self, path: str) -> bytes:
        """Return the Allow header of a path; FastAPI's does not list HEAD."""
        methods = self._methods.get(self.name(path), {"GET", "POST"})
        if "GET" in methods:
            methods = methods | {"HEAD"}
        return ", ".join(sorted(methods)).encode()


class Middleware:
    """A middleware; `handle` is called with each request."""

    def __init__(self, app: ASGIApp, state: State, routes: Routes) -> None:
        self.app, self.state, self.routes = app, state, routes
        self.settings: Settings = state.settings
        self.metrics: HttpMetrics = state.metrics.http

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; pass on other ASGI scopes."""
        handle = self.handle if scope["type"] == "http" else self.app
        await handle(scope, receive, send)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        raise NotImplementedError


class Paths(Middleware):
    """Calls the application with the prefix in the path, and with GET for HEAD, whose body the server omits.

    Some proxies strip the prefix and some do not; ASGI's path includes it.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        root, path = self.settings.root_path, scope["path"]
        if not path.startswith(f"{root}/"):
            path = root + path
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self.app({**scope, "method": method, "root_path": root, "path": path}, receive, send)


class Responses(Middleware):
    """Adds the request id and the security headers to every response, and logs the request."""

    unready = ""
    """The reason of the last 503 of /readyz that was logged."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        path, name, status = path_of(scope), id_of(dict(scope["headers"])), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message["headers"], *headers_of(path), (ID_HEADER, name)]
                if status == 405:
                    headers = [header for header in headers if header[0] != b"allow"]
                    headers.append((b"allow", self.routes.allowed(path)))
                if self.state.draining:
                    headers.append((b"connection", b"close"))
                message["headers"] = headers
            await send(message)

        token = request_id.set(name.decode())
        try:
            await self.app(scope, receive, send_with_headers)
            self._log(scope["method"], path, status, time.perf_counter() - started)
        finally:
            request_id.reset(token)

    def _log(self, method: str, path: str, status: int, seconds: float) -> None:
        """Log a request: errors of the server at ERROR, errors of the client at INFO, successes at DEBUG.

        503 is a state or an overload, not an error: WARNING, and for /readyz, which is polled, once for each reason.
        """
        if status == 503 and path in READY:
            reason = "draining" if self.state.draining else self.state.reason
            if reason == self.unready:
                return
            self.unready = reason
        levels = {2: logging.DEBUG, 3: logging.DEBUG, 4: logging.INFO}
        level = logging.WARNING if status == 503 else levels.get(status // 100, logging.ERROR)
        path = path[:200]  # the client's, of up to 64 kB
        extra = {"method": method, "path": path, "status": status, "ms": round(seconds * 1000, 3)}
        log.log(level, "%s %s: %d", method, path, status, extra=extra)


class Admission(Middleware):
    """Rejects requests of unknown methods, without a key, beyond the number in progress, or with too large a body."""

    def __init__(self, app: ASGIApp, state: State, routes: Routes) -> None:
        super().__init__(app, state, routes)
        self.keys = Keys(self.settings)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, path = time.perf_counter(), path_of(scope)
        counted = not path.startswith(HEALTH)
        self.state.in_progress += counted
        self.metrics.in_progress.inc(counted)
        try:
            refused = self._refused(scope, path)
            if refused is None:
                await self.app(scope, self._limited(receive, _max_body(path)), send)
                return
            self.metrics.rejected.labels(REASONS[refused.status_code]).inc()
            if refused.status_code != 405:  # clients could create any number of label values
                status = f"{refused.status_code // 100}xx"
                self.metrics.request(self.routes.name(path), scope["method"], status, time.perf_counter() - started)
            await respond(scope, receive, send, refused.status_code, refused.detail, refused.headers)
        finally:
            self.state.in_progress -= counted
            self.metrics.in_progress.dec(counted)

    def _refused(self, scope: Scope, path: str) -> HTTPException | None:
        """Return the rejection of a request, None if it is accepted."""
        if scope["method"] not in METHODS:
            return HTTPException(405, "This method is not allowed here.")
        if path.startswith(HEALTH):
            return None
        if self.state.in_progress > self.settings.max_in_progress:
            detail = f"More than {self.settings.max_in_progress} requests are in progress."
            return HTTPException(503, detail, {"Retry-After": "1"})
        headers = dict(scope["headers"])
        if headers_of(path) is SECURITY_HEADERS and not self.keys.admit(headers):
            detail = "X-API-Key is missing or invalid."
            return HTTPException(401, detail, {"WWW-Authenticate": "X-API-Key"})
        length, most = headers.get(b"content-length", b""), _max_body(path)
        return _too_large(most) if length.isdigit() and int(length) > most else None

    def _limited(self, receive: Receive, most: int) -> Receive:
        """Return a receive channel that raises 413 when more than `most` bytes of a body have come."""
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                self.metrics.rejected.labels(REASONS[413]).inc()
                raise _too_large(most)
            return message

        return limited


def _max_body(path: str) -> int:
    """Return the largest body of a path, bytes."""
    return next((most for start, most in MAX_BODIES.items() if path.startswith(start)), MAX_BODY)


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"The body has more than {most} bytes.")


class TimeLimit(Middleware):
    """Ends a request that takes too long with 504, and one that fails unexpectedly with 500.

    The application's own middleware counts the request, including one that is cancelled here.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit, responding = asyncio.timeout(self.settings.request_seconds), False

        async def watched_send(message: Message) -> None:
            nonlocal responding
            responding = True
            await send(message)

        try:
            async with limit:
                await self.app(scope, receive, watched_send)
        except Exception:  # pylint: disable=broad-exception-caught # every response is a problem, without internals
            if limit.expired():
                self.metrics.rejected.labels("timeout").inc()
                status, detail = 504, f"The request took more than {self.settings.request_seconds:g} seconds."
                headers = {"Connection": "close"}  # the client may still be sending the body
            else:
                log.exception("unhandled error in %s %s", scope["method"], path_of(scope))
                status, detail, headers = 500, problem_details.FAILED, {}
            if responding:
                raise  # the server can only close the connection
            await respond(scope, receive, send, status, detail, headers)
