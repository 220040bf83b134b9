"""Requests through both paths of /predict, in this process: one table of refusals, limits, ids, keys and counts.

`/predict` takes the fast path, `/predict?explain=false` the ordinary route: only FastAPI reads a query. The fast path
hands over a body in pieces.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings, strategies
from starlette.types import Receive, Scope, Send

from app.api.fast_path import FastPath
from app.api.schemas import Prediction
from app.interface import EXAMPLE
from app.model.bundles import Bundle
from app.model.prediction import Predictions
from tests.support.clients.asgi import JSON, Client, call, make_service

BODY = json.dumps(EXAMPLE).encode()
PATHS = ("/predict", "/predict?explain=false")
PROBLEM = "application/problem+json"
FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "3"))
"""How long to look; `on-time ci fuzz` looks longer."""


@pytest.fixture(scope="module")
def client(bundle: Bundle) -> Client:
    """A client of the service on the small bundle."""
    return Client(make_service(bundle))


def changed(**changes: Any) -> bytes:
    """Return the example with changes, as JSON; `...` leaves a field out."""
    return json.dumps({key: value for key, value in (EXAMPLE | changes).items() if value is not ...}).encode()


def comparable(response: httpx.Response) -> tuple[int, list[tuple[str, str]], Any]:
    """Return status, headers and body without what differs from one request to the next."""
    content = response.json()
    name = content.pop("prediction_id", None)
    assert name is None or len(name) == 32
    headers = sorted(item for item in response.headers.items() if item[0] != "x-request-id")
    return response.status_code, headers, content


def post_on_both(client: Client, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    """Send a body on both paths, whole and in pieces; assert that the responses are the same, and return one."""
    fast, ordinary = (client.post(path, body, headers) for path in PATHS)
    pieces = client.post("/predict", [body[:7], body[7:]], headers)
    assert comparable(fast) == comparable(ordinary) == comparable(pieces)
    return fast


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        changed(weather=None),
        changed(weather=[{}] * 7),
        changed(weather=[{"precipitation_in": 0, "humidity_pct": 70}]),
        changed(scheduled_departure="2013-07-01T18:15:00.25", scheduled_arrival="2013-07-01 21:29"),
        changed(carrier="ZZ", dest="ZZZ"),
        BODY[:-1] + b',"origin":"LGA"}',
        BODY.replace(b'"EWR"', b'"BOS","origin":"EWR"'),
        BODY + b" " * (1 << 14),
    ],
)
def test_valid_requests(client: Client, body: bytes) -> None:
    assert post_on_both(client, body).status_code == 200


REFUSALS = [
    (changed(carrier=...), 422, "carrier: Field required"),
    (changed(carrier="ual"), 422, "carrier"),
    (changed(origin="BOS"), 422, "origin"),
    (changed(dest="San Francisco"), 422, "dest"),
    (changed(dest="EWR"), 422, "dest"),
    (changed(dep_delay=5), 422, "dep_delay"),
    (changed(weather=[]), 422, "weather"),
    (changed(weather=[{}] * 8), 422, "weather"),
    (changed(weather=[{"humidity_pct": 101}]), 422, "weather.0.humidity_pct"),
    (changed(weather=[{"humidity_pct": True}]), 422, "weather.0.humidity_pct"),
    (changed(weather=[{"precipitation_in": "0.3"}]), 422, "weather.0.precipitation_in"),
    (changed(weather=[{"precipitation_in": 10**400}]), 422, "weather.0.precipitation_in"),
    (changed(weather=[{"snow": 1}]), 422, "weather.0.snow"),
    (BODY.replace(b"75.9", b"NaN"), 422, "temperature_f"),
    (BODY.replace(b"75.9", b"-Infinity"), 422, "temperature_f"),
    (BODY.replace(b"75.9", b"1e999"), 422, "temperature_f"),
    (changed(scheduled_departure="tomorrow"), 422, "scheduled_departure"),
    (changed(scheduled_departure=1372702500), 422, "scheduled_departure: must be a date and a time of day"),
    (changed(scheduled_departure="2013-07-01"), 422, "scheduled_departure: must be a date and a time of day"),
    (changed(scheduled_departure="2013-07-01T24:00:00"), 422, "must be a date and a time of day"),
    (changed(scheduled_departure="2011-12-31T23:00:00", scheduled_arrival="2012-01-01T02:00:00"), 422, "2012-01-01"),
    (changed(scheduled_departure="2013-07-01T18:15:00Z"), 422, "should not have timezone"),
    (changed(scheduled_departure="0001-01-01T00:00:00"), 422, "scheduled_departure"),
    (changed(scheduled_departure="9999-12-31T23:59:00", scheduled_arrival="9999-12-31T23:59:59"), 422, "scheduled"),
    (changed(scheduled_arrival="2013-07-01T17:00:00"), 422, "scheduled_arrival"),
    (changed(scheduled_arrival="2013-07-04T18:15:00"), 422, "within 24 hours"),
    (BODY.replace(b'"UA"', b'"\\ud800A"'), 422, "carrier"),
    (BODY[:-1] + b',"origin":"BOS"}', 422, "origin"),
    (b"", 422, "body: Field required"),
    (b"null", 422, "body"),
    (b"[]", 422, "body"),
    (BODY[:-1], 422, "not JSON: at byte"),
    (BODY + b"x", 422, f"not JSON: at byte {len(BODY)} (line 1, column {len(BODY) + 1})"),
    (b'{"carrier": "UA",\n "origin" "EWR"}', 422, "not JSON: at byte 28 (line 2, column 11)"),
    ('{"ä": 1,\n,}'.encode(), 422, "not JSON: at byte 10 (line 2, column 1)"),
    (b"\xff\xfe\xfd", 400, "UTF-16"),
    (b'{"carrier": "\xfc"}', 400, "UTF-8"),
    (b"[" * 10_000, 400, "nested too deeply"),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "nested too deeply"),
    (b"9" * 5000, 400, "too many digits"),
    (b" " * ((1 << 20) + 1), 413, "1048576 bytes"),
]


@pytest.mark.parametrize(("body", "status", "detail"), REFUSALS)
def test_refused_bodies(client: Client, body: bytes, status: int, detail: str) -> None:
    response = post_on_both(client, body)
    assert (response.status_code, response.headers["Content-Type"]) == (status, PROBLEM)
    assert detail in response.json()["detail"] and response.json()["status"] == status
    assert len(response.content) <= 64 << 10 and "Traceback" not in response.text


@pytest.mark.parametrize(
    ("headers", "status", "detail"),
    [
        ({}, 415, "missing"),
        ({"Content-Type": "text/plain"}, 415, "text/plain"),
        ({"Content-Type": "multipart/form-data"}, 415, "multipart/form-data"),
        ({"Content-Type": "x/y+z"}, 415, "x/y+z"),
        ({"Content-Type": "x"}, 415, "'x'"),
        ({"Content-Type": "application/json; charset=utf-8"}, 200, ""),
        ({"Content-Type": "application/vnd.api+json"}, 200, ""),
        ({"Content-Type": "APPLICATION/JSON"}, 200, ""),
    ],
)
def test_headers_of_a_body(client: Client, headers: dict[str, str], status: int, detail: str) -> None:
    response = post_on_both(client, BODY, headers)
    assert response.status_code == status and detail in response.json().get("detail", "")
    assert response.headers.get("Accept") == ("application/json" if status == 415 else None)


def test_a_compressed_body_is_415(client: Client) -> None:
    response = post_on_both(client, gzip.compress(BODY), JSON | {"Content-Encoding": "gzip"})
    assert response.status_code == 415 and response.headers["Accept-Encoding"] == "identity"
    assert "gzip" in response.text


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_the_largest_body_is_read(client: Client, path: str) -> None:
    limit = (8 if "batch" in path else 1) << 20
    rejected = client.metric('http_requests_rejected_total{reason="body_too_large"}')
    part = b" " * (1 << 16)
    assert client.post(path, b"{}".ljust(limit)).status_code == 422
    for response in (
        client.post(path, [part] * (limit // len(part) + 1)),
        client.post(path, b"", JSON | {"Content-Length": str(limit + 1)}),
    ):
        assert response.status_code == 413 and str(limit) in response.json()["detail"]
    assert client.metric('http_requests_rejected_total{reason="body_too_large"}') == rejected + 2


JSON_VALUES = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner, max_size=3)
    | strategies.dictionaries(strategies.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@strategies.composite
def bodies(draw: strategies.DrawFn) -> bytes:
    """Bodies that are nearly right: fields changed, left out or added, bytes cut, doubled or replaced."""
    flight = {name: value for name, value in EXAMPLE.items() if draw(strategies.integers(0, 9))}
    for _ in range(draw(strategies.integers(0, 2))):
        flight[draw(strategies.sampled_from([*EXAMPLE, "more"]))] = draw(JSON_VALUES)
    body = bytearray(json.dumps(flight).encode())
    for _ in range(draw(strategies.sampled_from([0, 0, 1, 2]))):
        position = draw(strategies.integers(0, len(body)))
        length = draw(strategies.integers(0, 3))
        body[position : position + length] = draw(
            strategies.binary(max_size=3) | strategies.just(bytes(body[position:]))
        )
    return bytes(body)


def test_whatever_is_sent_both_paths_agree(client: Client) -> None:
    @settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(body=bodies() | strategies.binary(max_size=200))
    def fuzz(body: bytes) -> None:
        assert post_on_both(client, body).status_code in (200, 400, 422)

    end = time.monotonic() + FUZZ_SECONDS
    while time.monotonic() < end:
        fuzz()  # pylint: disable=no-value-for-parameter # hypothesis gives it


async def unexpected(scope: Scope, receive: Receive, send: Send) -> None:
    """Fail as no request may come here."""
    raise AssertionError(scope["path"])


def test_a_plain_request_does_not_reach_fastapi(bundle: Bundle) -> None:
    service = make_service(bundle)
    service.app = unexpected  # type: ignore[assignment]
    response = Client(service).post("/predict", BODY)
    assert response.status_code == 200 and int(response.headers["Content-Length"]) == len(response.content)
    assert response.headers["X-Model-Version"] == "7" and len(response.headers) == 7
    content = Prediction.model_validate_json(response.content, strict=True)
    assert content.model_dump(exclude_unset=True) == response.json()
    assert content.alert == (content.probability >= content.threshold)


WATCHED = [
    'http_requests_total{handler="/predict",method="POST",status="2xx"}',
    'http_requests_total{handler="/predict",method="POST",status="4xx"}',
    'http_requests_total{handler="/predict",method="POST",status="5xx"}',
    'http_request_duration_seconds_count{handler="/predict",method="POST"}',
    "http_request_duration_highr_seconds_count",
    'model_inference_seconds_count{model_version="7"}',
]


class Recorded:
    """A journal in memory."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def record(self, batch: Predictions) -> None:
        """Keep the ids."""
        self.ids += batch.ids


@pytest.fixture
def watched(bundle: Bundle) -> Iterator[tuple[FastPath, Client, Recorded]]:
    """A service, its client and its journal, in memory."""
    service, journal = make_service(bundle), Recorded()
    service.state.predictor.journal = journal
    yield service, Client(service), journal


@pytest.mark.parametrize("path", PATHS)
def test_each_request_is_counted_once(watched: tuple[FastPath, Client, Recorded], path: str) -> None:
    _, client, journal = watched
    answers = [client.post(path, body) for body in (BODY, changed(weather=None, carrier="ZZ"), b"{}")]
    assert [client.metric(series) for series in WATCHED] == [2, 1, 0, 3, 3, 2]
    assert journal.ids == [answer.json()["prediction_id"] for answer in answers[:2]]


@pytest.mark.parametrize("path", PATHS)
def test_a_failing_request_is_counted_once(
    watched: tuple[FastPath, Client, Recorded],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    path: str,
) -> None:
    def fail(*_: object) -> bytes:
        raise RuntimeError("an internal reason")

    service, client, journal = watched
    monkeypatch.setattr(Predictions, "contents", fail)
    response = client.post(path, BODY, JSON | {"X-Request-ID": "mine"})
    assert (response.status_code, response.headers["X-Request-ID"]) == (500, "mine")
    assert "an internal reason" not in response.text and "an internal reason" in caplog.text
    assert [client.metric(series) for series in WATCHED] == [0, 0, 1, 1, 1, 1] and len(journal.ids) == 1
    service.state.served = "no model"
    assert client.post(path, BODY).status_code == 500 and len(journal.ids) == 1
    service.state.served = None
    response = client.post(path, BODY)
    assert response.status_code == 503 and "being loaded" in response.json()["detail"]


def test_a_probe_leaves_no_trace(watched: tuple[FastPath, Client, Recorded]) -> None:
    _, client, journal = watched
    probed = client.post("/predict?probe=true", BODY).json()
    assert not journal.ids and client.metric(WATCHED[-1]) == 0
    assert probed | {"prediction_id": ""} == client.post("/predict", BODY).json() | {"prediction_id": ""}
    assert len(journal.ids) == 1


def test_states_that_hand_over(watched: tuple[FastPath, Client, Recorded], caplog: pytest.LogCaptureFixture) -> None:
    service, client, _ = watched
    service.state.draining = True
    assert post_on_both(client, BODY).headers["Connection"] == "close"
    service.state.draining = False
    with caplog.at_level(logging.DEBUG, "app.http"):
        assert client.post("/predict", BODY).status_code == 200
    assert caplog.messages == ["POST /predict: 200"]
    service.state.in_progress = service.max_in_progress
    response = post_on_both(client, BODY)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert client.get("/livez").status_code == 200
    assert client.metric('http_requests_rejected_total{reason="too_many_in_progress"}') == 3


@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_does_not_come_is_504(bundle: Bundle, path: str) -> None:
    client = Client(make_service(bundle, request_seconds=0.2))
    response = asyncio.run(call(client.app, "POST", path, JSON, [BODY[:20]], complete=False))
    assert (response.status_code, response.headers["Connection"]) == (504, "close")
    assert "0.2 seconds" in response.json()["detail"]
    assert client.metric('http_requests_rejected_total{reason="timeout"}') == 1
    assert client.metric('http_requests_total{handler="/predict",method="POST",status="5xx"}') == 1
    assert client.metric("http_requests_in_progress") == 0


def test_a_request_that_the_server_cancels(bundle: Bundle) -> None:
    async def cancel() -> None:
        app = make_service(bundle).app
        task = asyncio.create_task(call(app, "POST", "/predict", JSON, [BODY[:20]], complete=False))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())


@pytest.mark.parametrize("path", [*PATHS, "/livez", "/nowhere", "/openapi.json", "/predict/batch"])
def test_request_ids(client: Client, path: str) -> None:
    for name in ("abc-123", "A" * 64):
        assert client.post(path, BODY, JSON | {"X-Request-ID": name}).headers["X-Request-ID"] == name
    for name in ("", "a b", "x" * 65, "<script>", "ä"):
        ids = {client.post(path, BODY, JSON | {"X-Request-ID": name}).headers["X-Request-ID"] for _ in range(2)}
        assert len(ids) == 2 and all(len(made) == 32 and set(made) <= set("0123456789abcdef") for made in ids)


def test_api_keys(bundle: Bundle) -> None:
    digests = ",".join(hashlib.sha256(key).hexdigest() for key in (b"first", b"second"))
    client = Client(make_service(bundle, api_keys=digests))
    for headers in ({}, {"X-API-Key": ""}, {"X-API-Key": "third"}, {"X-API-Key": "firs"}):
        response = post_on_both(client, BODY, JSON | headers)
        assert response.status_code == 401 and response.headers["WWW-Authenticate"]
        assert client.post("/predict/batch", BODY, JSON | headers).status_code == 401
    assert client.get("/version").status_code == 401
    for key in ("first", "second"):
        assert post_on_both(client, BODY, JSON | {"X-API-Key": key}).status_code == 200
    for path in ("/livez", "/readyz", "/metrics", "/docs", "/openapi.json"):
        assert client.get(path).status_code == 200
    assert client.metric('http_requests_rejected_total{reason="unauthorized"}') == 17
    security = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["security"]
    assert security == [{"ApiKey": []}]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nowhere", 404, None),
        ("GET", "/predict", 405, "POST"),
        ("HEAD", "/predict", 405, "POST"),
        ("DELETE", "/livez", 405, "GET, HEAD"),
        ("PURGE", "/predict", 405, "POST"),
        ("PROPFIND", "/predict", 405, "POST"),
        ("GET", "/predict/", 404, None),
        ("GET", "/livez/", 404, None),
        ("GET", "/static-offline-docs", 404, None),
    ],
)
def test_other_paths_and_methods(client: Client, method: str, path: str, status: int, allow: str | None) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.headers.get("Allow")) == (status, allow)
    assert response.headers["Content-Type"] == PROBLEM and "Location" not in response.headers
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert not any(unknown in client.get("/metrics").text for unknown in ("PURGE", "PROPFIND"))


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/version", "/openapi.json", "/docs", "/nowhere"])
def test_head_has_the_headers_of_get(client: Client, path: str) -> None:
    got, head = (client.request(method, path) for method in ("GET", "HEAD"))
    assert got.status_code == head.status_code
    assert [i for i in got.headers.items() if i[0] != "x-request-id"] == [
        i for i in head.headers.items() if i[0] != "x-request-id"
    ]


def test_no_other_site_may_read_responses(client: Client) -> None:
    headers = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
    for response in (
        client.request("OPTIONS", "/predict", headers=headers),
        post_on_both(client, BODY, JSON | headers),
    ):
        assert not [name for name in response.headers if name.startswith("access-control")]
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        assert response.headers["Cache-Control"] == "no-store" and "server" not in response.headers


def test_under_a_prefix(bundle: Bundle) -> None:
    client = Client(make_service(bundle, root_path="/models/risk"))
    for prefix in ("", "/models/risk"):  # whether the proxy removes it or not
        assert post_on_both(Client(partial(_prefixed, client.app, prefix)), BODY).status_code == 200
        assert client.get(f"{prefix}/livez").status_code == 200
        assert client.get(f"{prefix}/risk").status_code == 404
        assert "/models/risk/openapi.json" in client.get(f"{prefix}/docs").text
        assert client.post(f"{prefix}/predict/batch", b" " * ((8 << 20) + 1)).status_code == 413
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/models/risk"}]
    assert client.metric(WATCHED[0]) == 6


async def _prefixed(app: Callable[..., Any], prefix: str, scope: Scope, receive: Receive, send: Send) -> None:
    await app({**scope, "path": prefix + scope["path"]}, receive, send)


def test_docs_can_be_switched_off(bundle: Bundle) -> None:
    client = Client(make_service(bundle, docs=False))
    for path in ("/docs", "/openapi.json", "/redoc", "/static-offline-docs/swagger-ui.css"):
        assert client.get(path).status_code == 404
    assert client.post("/predict", BODY).status_code == 200


def test_long_paths_are_cut_in_the_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "app.http"):
        assert client.get(f"/{'x' * 20_000}").status_code == 404
    assert max(map(len, caplog.messages)) < 300


def test_an_explanation_adds_up(client: Client) -> None:
    answer = client.post("/predict?explain=true", changed(carrier="ZZ")).json()
    explanation, parts = answer["explanation"], answer["explanation"]["contributions"]
    sizes = [abs(part["contribution"]) for part in parts]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 0
    total = explanation["baseline"] + sum(part["contribution"] for part in parts)
    assert total == pytest.approx(explanation["log_odds"])
    assert 1 / (1 + math.exp(-total)) == pytest.approx(answer["probability"])
    values = {part["feature"]: part["value"] for part in parts}
    assert len(values) == 26
    assert (values["carrier"], values["origin"], values["departure_minute"]) == (None, "EWR", 18 * 60 + 15)
    assert values["precipitation_in"] == 0.3
