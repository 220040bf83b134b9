"""What every request passes: ids, limits, keys, headers and the log; each on the real server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.interface import EXAMPLE
from tests.conftest import bake
from tests.support.service import Service, Start, started

PROBLEM = "application/problem+json"
BODY = json.dumps(EXAMPLE).encode()
JSON = {"Content-Type": "application/json"}
ROUTES = ("/predict", "/predict?explain=false")
"""The short way past FastAPI, and the ordinary one: a query makes the difference."""


@pytest.fixture(scope="module")
def plain(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on the small bundle that takes half a second for a request, and no longer."""
    folder = tmp_path_factory.mktemp("plain")
    settings = {"BAKED_MODEL": bake(bundle_dir, "7", folder / "baked"), "JOURNAL_URL": "none", "REQUEST_SECONDS": 0.5}
    with started(folder, **{f"ONTIME_{name}": str(value) for name, value in settings.items()}) as service:
        yield service


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Assert that an answer is a problem with everything that answers have, and return its body."""
    assert answer.status_code == status and answer.headers["Content-Type"] == PROBLEM
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and len(answer.headers["X-Request-ID"]) >= 1
    assert answer.json()["status"] == status
    return dict(answer.json())


@pytest.mark.parametrize("path", ["/predict", "/predict?explain=true", "/livez", "/nowhere", "/openapi.json"])
@pytest.mark.parametrize("name", ["abc-123", "A" * 64])
def test_the_id_of_a_request_is_echoed(plain: Service, path: str, name: str) -> None:
    assert httpx.post(plain.base + path, headers={"X-Request-ID": name}).headers["X-Request-ID"] == name


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "<script>", "ä".encode()])
def test_an_id_that_is_none_is_replaced(plain: Service, name: str | bytes) -> None:
    answers = [httpx.get(f"{plain.base}/livez", headers={"X-Request-ID": name}) for _ in range(2)]
    ids = {answer.headers["X-Request-ID"] for answer in answers}
    assert len(ids) == 2 and all(len(made) == 32 and set(made) <= set("0123456789abcdef") for made in ids)


@pytest.mark.parametrize("path", [*ROUTES, "/predict/batch"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long_is_refused(plain: Service, path: str, chunked: bool) -> None:
    limit = (8 if "batch" in path else 1) << 20
    rejected = plain.metric('http_requests_rejected_total{reason="body_too_large"}')
    parts = (b" " * (1 << 16) for _ in range(limit // (1 << 16) + 1))
    answer = httpx.post(plain.base + path, content=parts if chunked else b" " * (limit + 1), headers=JSON)
    assert str(limit) in assert_problem(answer, 413)["detail"]
    assert plain.metric('http_requests_rejected_total{reason="body_too_large"}') == rejected + 1
    largest = httpx.post(plain.base + path, content=b"{}".ljust(limit), headers=JSON)
    assert largest.status_code == 422


@pytest.mark.parametrize("path", ROUTES)
def test_a_body_that_does_not_come_is_answered_in_time(plain: Service, path: str) -> None:
    before = plain.metric('http_requests_rejected_total{reason="timeout"}')
    with socket.create_connection(("127.0.0.1", int(plain.base.rpartition(":")[2])), timeout=10) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
        client.sendall(head.encode() + BODY[:20])
        started_at, answer = time.monotonic(), b""
        while part := client.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 504") and b"connection: close" in answer and b"0.5 seconds" in answer
    assert 0.4 < time.monotonic() - started_at < 10
    assert plain.metric('http_requests_rejected_total{reason="timeout"}') == before + 1
    assert plain.metric('http_requests_total{handler="/predict",method="POST",status="5xx"}') >= 1


def test_more_requests_than_allowed_at_once_are_sent_away(start: Start, baked: Path) -> None:
    service = start(baked_model=baked, journal_url="none", max_in_progress=2, request_seconds=20)

    async def part() -> Iterator[bytes]:  # type: ignore[misc]
        yield BODY[:10]
        await release.wait()
        yield BODY[10:]

    async def run() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=service.base, timeout=30) as client:
            slow = [asyncio.create_task(client.post("/predict", content=part(), headers=JSON)) for _ in range(2)]
            while service.metric("http_requests_in_progress") < 2:
                await asyncio.sleep(0.05)
            third, ready = await client.post("/predict", json=EXAMPLE), await client.get("/readyz")
            release.set()
            return [third, ready, *await asyncio.gather(*slow), await client.post("/predict", json=EXAMPLE)]

    release = asyncio.Event()
    refused, *others = asyncio.run(run())
    assert_problem(refused, 503)
    assert refused.headers["Retry-After"] == "1"
    assert [answer.status_code for answer in others] == [200, 200, 200, 200]
    assert service.metric('http_requests_rejected_total{reason="too_many_in_progress"}') == 1
    assert service.metric("http_requests_in_progress") == 0


@pytest.mark.parametrize("method", ["PURGE", "MKCOL", "PROPFIND"])
def test_methods_that_nobody_serves_make_no_series(plain: Service, method: str) -> None:
    before = plain.metric('http_requests_rejected_total{reason="method"}')
    answer = httpx.request(method, f"{plain.base}/predict")
    assert_problem(answer, 405)
    assert answer.headers["Allow"] == "POST"
    assert plain.metric('http_requests_rejected_total{reason="method"}') == before + 1
    assert method not in httpx.get(f"{plain.base}/metrics").text


@pytest.mark.parametrize(("method", "path", "allow"), [("GET", "/predict", "POST"), ("DELETE", "/livez", "GET, HEAD")])
def test_a_method_that_a_route_lacks_is_405(plain: Service, method: str, path: str, allow: str) -> None:
    answer = httpx.request(method, plain.base + path)
    assert_problem(answer, 405)
    assert answer.headers["Allow"] == allow


def test_no_other_site_may_read_answers(plain: Service) -> None:
    headers = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
    for answer in (
        httpx.options(f"{plain.base}/predict", headers=headers),
        httpx.post(f"{plain.base}/predict", json=EXAMPLE, headers=headers),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store" and "server" not in answer.headers


@pytest.fixture
def guarded(start: Start, baked: Path) -> Service:
    """A service that knows two keys."""
    digests = ",".join(hashlib.sha256(key).hexdigest() for key in (b"first", b"second"))
    return start(baked_model=baked, journal_url="none", api_keys=digests)


def test_where_there_are_keys_one_is_asked_for(guarded: Service) -> None:
    for path in (*ROUTES, "/predict/batch"):
        for headers in ({}, {"X-API-Key": ""}, {"X-API-Key": "third"}, {"X-API-Key": "firs"}):
            answer = httpx.post(guarded.base + path, json=EXAMPLE, headers=headers)
            assert_problem(answer, 401)
            assert answer.headers["WWW-Authenticate"]
    assert httpx.get(f"{guarded.base}/version").status_code == 401
    for key in ("first", "second"):
        for path in ROUTES:
            assert httpx.post(guarded.base + path, json=EXAMPLE, headers={"X-API-Key": key}).status_code == 200
    for path in ("/livez", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert httpx.get(guarded.base + path).status_code == 200
    assert guarded.metric('http_requests_rejected_total{reason="unauthorized"}') == 13
    security = httpx.get(f"{guarded.base}/openapi.json").json()["paths"]["/predict"]["post"]["security"]
    assert security == [{"ApiKey": []}]


def test_the_docs_can_be_switched_off(start: Start, baked: Path) -> None:
    service = start(baked_model=baked, journal_url="none", docs=False)
    for path in ("/docs", "/openapi.json", "/redoc", "/static-offline-docs/swagger-ui.css"):
        assert_problem(httpx.get(service.base + path), 404)
    assert httpx.post(f"{service.base}/predict", json=EXAMPLE).status_code == 200
