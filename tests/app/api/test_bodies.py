"""What is wrong with a body is named, and costs little, however much there is."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pydantic import TypeAdapter, ValidationError

from app.api.edge import bodies
from app.api.routes import batch_body
from app.interface import EXAMPLE, Request
from app.model.bundles import Bundle
from tests.support.clients.asgi import Client, make_service
from tests.support.servers.service import Service, Start

SECOND = timedelta(seconds=1)
WRONG_HOUR = {"temperature_f": "", "dew_point_f": 1000, "humidity_pct": [], "wind_speed_mph": True, "snow": 1}


def unknown(count: int, **fields: Any) -> dict[str, Any]:
    """Return an object with this many unknown keys."""
    return fields | {f"{i:x}": 0 for i in range(count)}


def departs(at: str, arrives: str) -> dict[str, str]:
    """Return the times of a flight."""
    return {"scheduled_departure": at, "scheduled_arrival": arrives}


def reported(body: dict[str, Any]) -> bodies.Invalid:
    """Return the errors of a batch."""
    with pytest.raises(bodies.Invalid) as caught:
        batch_body.BATCH.parse(json.dumps(body).encode())
    return caught.value


@pytest.mark.parametrize(
    "rows",
    [
        [EXAMPLE, {}],
        [unknown(900)],
        [EXAMPLE | unknown(150)] * 40,
        [EXAMPLE | {"weather": [unknown(300), WRONG_HOUR]}] * 30,
        [{"weather": [WRONG_HOUR] * 7}] * 100,
        [EXAMPLE | {"weather": unknown(300), "carrier": unknown(300)}, 5, None, "x", []] * 30,
        [EXAMPLE | {"weather": [{}] * 9}, EXAMPLE | {"dest": "EWR"}],
    ],
)
def test_errors_are_pydantics_and_all_are_counted(rows: list[Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(dict[str, list[Request]]).validate_python({"flights": rows})
    expected = [".".join(map(str, error["loc"])) for error in caught.value.errors()]
    error = reported({"flights": rows})
    assert [item.field for item in error.errors] == expected[: bodies.MAX_ERRORS]
    assert len(error.errors) + error.omitted == len(expected)


@pytest.mark.parametrize("row", [unknown(1001), EXAMPLE | {"weather": [unknown(1001)]}])
def test_an_object_of_many_keys_is_one_error(row: dict[str, Any]) -> None:
    error = reported({"flights": [EXAMPLE, row]})
    assert [(item.field, item.message) for item in error.errors] == [
        ("flights.1", "An object has 1001 keys, more than 1000")
    ]


def test_errors_of_rows_and_beside_them() -> None:
    error = reported({"flights": [EXAMPLE] * 500 + [EXAMPLE | {"origin": "BOS"}] + [EXAMPLE] * 499, "more": 1})
    assert [item.field for item in error.errors] == ["flights.500.origin", "more"] and error.omitted == 0
    assert [item.field for item in reported({"flights": [{}] * 10_001}).errors] == ["flights"]


@pytest.mark.parametrize("size", [1, 100, 1000])
def test_a_valid_batch_is_ordinary(size: int) -> None:
    assert batch_body.BATCH.ordinary(json.dumps({"flights": [EXAMPLE] * size}).encode())


@pytest.mark.parametrize("key", ["k" * 500_000, "\x00" * 3000, "é" * 3000, '"\\'])
def test_a_response_is_small_whatever_the_keys(bundle: Bundle, key: str) -> None:
    body = json.dumps({f"{key[:700]}{i}": 0 for i in range(200)} | {key: 1}).encode()
    response = Client(make_service(bundle)).post("/predict", body)
    found = response.json()
    assert response.status_code == 422 and len(response.content) <= 64 << 10
    assert len(found["errors"]) <= 100 and len(found["errors"]) + found["errors_omitted"] == 206


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"scheduled_departure": "2013-07-01"}, "scheduled_departure"),
        ({"scheduled_arrival": "2013-07-02"}, "scheduled_arrival"),
        ({"dest": "EWR"}, "dest"),
        ({"scheduled_arrival": "2013-07-01T18:14:00"}, "scheduled_arrival"),
        ({"scheduled_arrival": EXAMPLE["scheduled_departure"]}, "scheduled_arrival"),
        (departs("2040-07-01T18:15:00", "2040-07-01T21:29:00"), "scheduled_departure"),
        (departs("1970-01-01T00:00:00", "1970-01-01T02:00:00"), "scheduled_departure"),
        (departs("9999-12-31T23:59:59", "9999-12-31T23:59:59.5"), "scheduled_departure"),
        (departs("2013-11-10T01:45:00", "2013-11-10T00:45:00"), "scheduled_arrival"),
    ],
)
def test_impossible_requests(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(bodies.Invalid) as caught:
        bodies.REQUEST.parse(json.dumps(EXAMPLE | changes).encode())
    assert [error.field for error in caught.value.errors] == [field]
    assert [e.field for e in reported({"flights": [EXAMPLE, EXAMPLE | changes]}).errors] == [f"flights.1.{field}"]


def test_the_period_of_departures_moves_with_the_clock() -> None:
    today = datetime.now()
    for days, allowed in ((-5000, True), (0, True), (365, True), (368, False)):
        departure = today + timedelta(days=days)
        times = {"scheduled_departure": departure.isoformat(), "scheduled_arrival": (departure + SECOND).isoformat()}
        try:
            Request.model_validate(EXAMPLE | times)
            assert allowed
        except ValidationError:
            assert not allowed


def test_a_short_flight_when_clocks_are_set_back() -> None:
    assert Request.model_validate(EXAMPLE | departs("2013-11-03T01:45:00", "2013-11-03T01:35:00"))


HOSTILE = {
    "unknown keys": ("/predict", json.dumps(unknown(80_000)).encode()),
    "rows of unknown keys": ("/predict/batch", json.dumps({"flights": [unknown(200)] * 1000}).encode()),
    "one row of unknown keys": ("/predict/batch", json.dumps({"flights": [unknown(150_000)]}).encode()),
    "rows of wrong values": (
        "/predict/batch",
        json.dumps({"flights": [{"weather": [WRONG_HOUR] * 7}] * 1000}).encode(),
    ),
    "empty objects": ("/predict/batch", b'{"flights":[' + b"{}," * 500_000 + b"{}]}"),
    "outcomes": ("/outcomes/batch", json.dumps({"outcomes": [unknown(100)] * 1000}).encode()),
}


class Together:
    """Sends a body several times at once, and measures the service meanwhile."""

    def __init__(self, service: Service, path: str, body: bytes, times: int) -> None:
        self.livez = self.slowest = 0.0
        self.process = psutil.Process(service.pid)
        self.before = self.peak = self.process.memory_info().rss
        self.answers: list[httpx.Response] = asyncio.run(self._run(service.base, path, body, times))

    async def _run(self, base: str, path: str, body: bytes, times: int) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=base, timeout=120) as client:
            started, headers = time.monotonic(), {"Content-Type": "application/json"}
            posts = [asyncio.create_task(client.post(path, content=body, headers=headers)) for _ in range(times)]
            while not all(post.done() for post in posts):
                asked = time.monotonic()
                await client.get("/livez")
                self.livez = max(self.livez, time.monotonic() - asked)
                self.peak = max(self.peak, self.process.memory_info().rss)
            self.slowest = time.monotonic() - started
            return [post.result() for post in posts]


@pytest.mark.long
@pytest.mark.parametrize("name", HOSTILE)
def test_an_invalid_body_costs_little_more(start: Start, baked: Path, tmp_path: Path, name: str) -> None:
    path, body = HOSTILE[name]
    service = start(baked_model=baked, journal_url=f"sqlite:///{tmp_path}/journal.db", request_seconds=60)
    valid = json.dumps({"flights": [EXAMPLE | {"weather": EXAMPLE["weather"] * 7}] * 1000}).encode()
    usual = [Together(service, "/predict/batch", valid, times) for times in (1, 1, 4)][-1]
    for times in (1, 4, 16):
        found = Together(service, path, body, times)
        assert {answer.status_code for answer in found.answers} == {422}
        assert max(len(answer.content) for answer in found.answers) <= 64 << 10
        assert found.slowest <= 4 * times * usual.slowest
        assert found.livez <= 6 * usual.slowest
        assert found.peak - found.before <= (30 + 6 * times) * len(body)


@pytest.mark.long
def test_the_time_limit_of_large_bodies_that_wait(start: Start, baked: Path) -> None:
    path, body = HOSTILE["rows of unknown keys"]
    service = start(baked_model=baked, journal_url="", request_seconds=0.3)
    found = Together(service, path, body, 16)
    assert {answer.status_code for answer in found.answers} <= {422, 504}
    assert found.slowest < 16 * 0.3
