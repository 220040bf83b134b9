"""Predictions that the protocol answers itself: which ones, and that the connection stays as with any other answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from app.api.application import create_app
from app.api.direct import Direct
from app.api.protocol import Protocol
from app.interface import EXAMPLE
from app.registry import version
from app.settings import Settings
from tests.conftest import bake
from tests.support.service import Service, started
from tests.support.wire import REQUEST, Load
from tests.support.wire import exchange as exchanged

BODY = json.dumps(EXAMPLE).encode()
PLAIN = ((b"content-type", b"application/json"),)
DATE = [(b"date", b"today")]
KEY = b"secret"


@pytest.fixture(scope="module", name="service")
def running(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a key, on the small bundle."""
    folder = tmp_path_factory.mktemp("direct")
    baked = str(bake(bundle_dir, "7", folder / "baked"))
    key = hashlib.sha256(KEY).hexdigest()
    with started(
        folder, ONTIME_BAKED_MODEL=baked, ONTIME_JOURNAL_URL="none", ONTIME_API_KEYS=key, ONTIME_ROOT_PATH="/flights"
    ) as service:
        yield service


@pytest.fixture(name="direct")
def answering(baked: Path) -> Direct:
    """The answers of an application with a model and without a server."""
    app = create_app(Settings(journal_url=""))
    app.state.served = version.load(baked, "baked")
    return Direct(app.state)


def request(*headers: str, first: str = "POST /predict HTTP/1.1", body: bytes = BODY) -> bytes:
    """Return a request with the key, as bytes."""
    lines = [first, "Host: x", "Content-Type: application/json", f"X-API-Key: {KEY.decode()}", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def exchange(service: Service, *pieces: bytes) -> bytes:
    """Send pieces and a last request that ends the connection; return all that comes back before its answer."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b""
        while data := connection.recv(1 << 16):
            received += data
    last = received.rfind(b"HTTP/1.1 ")
    return received[:last] if received.endswith(b'{"status":"live"}') else received


def statuses(received: bytes) -> list[int]:
    """Return the statuses of answers, in their order."""
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+)", received)]


def test_a_plain_request_is_answered_with_the_headers_of_the_server_the_model_and_the_edge(direct: Direct) -> None:
    answer = direct.answer([*PLAIN, (b"x-request-id", b"mine")], BODY, DATE)
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    start, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ") for line in lines)
    assert start == "HTTP/1.1 200 OK" and len(headers) == len(lines) == 8
    assert (headers["date"], headers["x-request-id"]) == ("today", "mine")
    assert int(headers["content-length"]) == len(body)
    assert json.loads(body)["model"]["version"] == headers["x-model-version"]


def test_the_head_follows_the_date_and_the_model(direct: Direct, bundle_dir: Path, tmp_path: Path) -> None:
    assert b"date: today" in (direct.answer(PLAIN, BODY, DATE) or b"")
    assert b"date: tomorrow" in (direct.answer(PLAIN, BODY, [(b"date", b"tomorrow")]) or b"")
    direct.state.served = version.load(bake(bundle_dir, "8", tmp_path / "other"), "baked")
    assert b"x-model-version: 8" in (direct.answer(PLAIN, BODY, DATE) or b"")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ((), BODY),
        (((b"content-type", b"text/plain"),), BODY),
        (PLAIN, BODY[:-1]),
        (PLAIN, b""),
        (PLAIN, BODY.replace(b"EWR", b"BOS")),
        (PLAIN, BODY + b" " * (1 << 14)),
    ],
)
def test_all_else_is_left_to_the_others(direct: Direct, headers: tuple[tuple[bytes, bytes], ...], body: bytes) -> None:
    assert direct.answer(headers, body, DATE) is None


def test_while_draining_without_a_model_or_with_a_broken_one_nothing_is_answered_directly(direct: Direct) -> None:
    for change in ({"draining": True}, {"served": None}, {"served": "no model"}):
        state = dict(direct.state._state)  # pylint: disable=protected-access # Starlette's state has no copy
        direct.state._state.update(change)  # pylint: disable=protected-access
        assert direct.answer(PLAIN, BODY, DATE) is None
        direct.state._state.update(state)  # pylint: disable=protected-access
    assert direct.answer(PLAIN, BODY, DATE)


def test_requests_in_one_piece_are_answered_in_their_order(service: Service) -> None:
    other = request(first="GET /flights/version HTTP/1.1", body=b"")
    bad = request(body=b"{}")
    named = [request(f"X-Request-ID: {i}") for i in range(3)]
    received = exchange(service, named[0] + other + named[1] + bad + named[2])
    assert statuses(received) == [200, 200, 200, 422, 200]
    assert re.findall(rb"x-request-id: (\d)\r", received) == [b"0", b"1", b"2"]


@pytest.mark.parametrize("cut", [1, 30, len(request()) - len(BODY), len(request()) - 1])
def test_a_request_in_pieces_is_answered_and_the_next_one_too(service: Service, cut: int) -> None:
    content = request()
    assert statuses(exchange(service, content[:cut], content[cut:] + content)) == [200, 200]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (request(first="POST /predict HTTP/1.0"), [200]),
        (request("Expect: 100-continue"), [100, 200]),
        (request("Upgrade: h2c", "Connection: Upgrade"), [200]),
        (request(first="POST /flights/predict HTTP/1.1"), [200]),
        (request(first="POST /predict?explain=true HTTP/1.1"), [200]),
        (request(first="POST /pr%65dict HTTP/1.1"), [200]),
        (request(first="PUT /predict HTTP/1.1"), [405]),
        (request().replace(KEY, b"wrong!"), [401]),
        (request("Transfer-Encoding: chunked").replace(b"Content-Length: %d\r\n" % len(BODY), b"").replace(
            BODY, b"%x\r\n%b\r\n0\r\nX-API-Key: trailer\r\n\r\n" % (len(BODY), BODY)), [200]),
    ],
)  # fmt: skip
def test_unusual_requests_are_answered_as_ever(service: Service, content: bytes, expected: list[int]) -> None:
    received = exchange(service, content)
    assert statuses(received) == expected
    if expected == [200]:
        assert b"probability" in received


@pytest.mark.parametrize("header", ["Connection: close", "Connection: keep-alive"])
def test_a_prediction_is_made_and_counted_once(service: Service, header: str) -> None:
    watched = [
        'http_requests_total{handler="/predict",method="POST",status="2xx"}',
        'model_inference_seconds_count{model_version="7"}',
    ]
    assert service.growth(watched, lambda: exchange(service, request(header))) == [1, 1]


def test_a_connection_stays_open_between_direct_answers_and_serves_thousands(service: Service) -> None:
    load = Load(service.port, REQUEST.replace(b"Host: x", b"Host: x\r\nX-API-Key: " + KEY), connections=4)
    asyncio.run(load.run(requests=4000))
    assert not load.failures and set(load.answers) == {200}


@asynccontextmanager
async def connected(app: FastAPI, idle: float = 75) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serve an application in this process, and connect to it."""
    config = uvicorn.Config(app, http=Protocol, log_config=None, access_log=False, ws="none", timeout_keep_alive=idle)
    server, listener = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve([listener]))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await serving


def test_an_unexpected_error_is_500_and_the_next_request_on_the_connection_is_answered(
    baked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Settings(journal_url="", baked_model=baked))

    async def asked() -> list[tuple[int, bool]]:
        async with connected(app) as connection:
            answers = [await exchanged(*connection, REQUEST)]
            served, app.state.served = app.state.served, "no model"
            answers.append(await exchanged(*connection, REQUEST))
            app.state.served = served
            return [*answers, await exchanged(*connection, REQUEST)]

    assert asyncio.run(asked()) == [(200, True), (500, True), (200, True)]
    assert "unhandled error in POST /predict" in caplog.text


def test_a_connection_is_closed_when_it_was_idle_for_the_whole_time_since_the_last_answer(baked: Path) -> None:
    idle = 2
    app = create_app(Settings(journal_url="", baked_model=baked))

    async def asked() -> tuple[float, float]:
        async with connected(app, idle) as (reader, writer):
            times = []
            for pause in (1.2, 1.2, 0):  # longer than the limit altogether
                assert await exchanged(reader, writer, REQUEST) == (200, True)
                times.append(time.monotonic())
                await asyncio.sleep(pause)
            assert await reader.read() == b""
            return times[-1] - times[0], time.monotonic() - times[-1]

    used, waited = asyncio.run(asked())
    assert used > idle and waited >= 0.9 * idle
