"""The short ways of a prediction answer as the ordinary route does, whatever is sent.

`/predict?explain=false` is `/predict` with a query, which only the ordinary route reads. A request in one piece may be
answered in the protocol (app/api/direct.py), one in two pieces by app/api/fast_path.py.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.api.application import create_app
from app.api.schemas import Prediction
from app.interface import EXAMPLE
from app.settings import Settings
from tests.conftest import bake
from tests.support.processes import wait_for
from tests.support.service import Service, started

BODY = json.dumps(EXAMPLE).encode()
FUZZ_SECONDS = float(os.environ.get("FUZZ_SECONDS", "5"))
"""How long to look; `on-time ci fuzz` looks longer."""
NOT_COMPARED = ("x-request-id", "date")


@pytest.fixture(scope="module")
def plain(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on the small bundle."""
    folder = tmp_path_factory.mktemp("plain")
    baked = str(bake(bundle_dir, "7", folder / "baked"))
    with started(folder, ONTIME_BAKED_MODEL=baked, ONTIME_JOURNAL_URL="none") as service:
        yield service


class Pair:
    """All ways of one service, on a connection that is kept."""

    def __init__(self, base: str) -> None:
        self.connection = http.client.HTTPConnection(base.removeprefix("http://"), timeout=30)

    def ask(
        self, path: str, body: bytes, headers: dict[str, str], pieces: bool = False
    ) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and body of an answer, without what differs from one request to the next."""
        if pieces:
            head = headers | {"Content-Length": str(len(body))}
            self.connection.request("POST", path, iter((body,)), head)
        else:
            self.connection.request("POST", path, body, headers)
        answer = self.connection.getresponse()
        content = json.loads(answer.read())
        for prediction in content.get("predictions", [content]):
            name = prediction.pop("prediction_id", None)
            assert name is None or len(name) == 32
        return (
            answer.status,
            {k.lower(): v for k, v in answer.getheaders() if k.lower() not in NOT_COMPARED},
            content,
        )

    def same(self, body: bytes, kind: str | None = "application/json", path: str = "/predict") -> int:
        """Ask all, assert that they answer alike, and return the status."""
        headers = {} if kind is None else {"Content-Type": kind}
        short, ordinary = (self.ask(way, body, headers) for way in (path, f"{path}?explain=false"))
        pieces = self.ask(path, body, headers, pieces=True)
        self.connection.close()  # or the server does, when the next request takes its time
        assert short == ordinary == pieces
        return short[0]


@pytest.fixture(scope="module")
def pair(plain: Service) -> Pair:
    """Both ways of the service."""
    return Pair(plain.base)


def changed(**changes: Any) -> bytes:
    """Return the example flight with changes, as JSON."""
    return json.dumps(EXAMPLE | changes).encode()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (BODY, 200),
        (changed(weather=None), 200),
        (changed(weather=[{}] * 7), 200),
        (changed(weather=[{"precipitation_in": 0, "humidity_pct": 70}]), 200),
        (changed(weather=[{"precipitation_in": "0.3"}]), 422),
        (changed(weather=[{"humidity_pct": True}]), 422),
        (changed(scheduled_departure="2013-07-01T18:15:00.25", scheduled_arrival="2013-07-01 21:29"), 200),
        (changed(scheduled_arrival="2013-07-02"), 422),
        (changed(scheduled_arrival="2013-07-01T17:00:00"), 422),
        (changed(dest="EWR"), 422),
        (changed(scheduled_departure="0001-01-01T00:00:00"), 422),
        (changed(scheduled_departure="9999-12-31T23:59:00", scheduled_arrival="9999-12-31T23:59:59"), 422),
        (changed(scheduled_departure=1372702500), 422),
        (changed(scheduled_departure="2013-07-01T18:15:00+02:00"), 422),
        (changed(dep_delay=1), 422),
        (changed(weather=[{"precipitation_in": math.nan}]), 422),
        (changed(weather=[{"precipitation_in": 10**400}]), 422),
        (BODY.replace(b'"UA"', b'"\\ud800A"'), 422),
        (BODY[:-1] + b',"origin":"LGA"}', 200),
        (BODY[:-1] + b',"origin":"BOS"}', 422),
        (BODY.replace(b'"EWR"', b'"BOS","origin":"EWR"'), 200),
        (b"\xef\xbb\xbf" + BODY, None),
        (BODY.decode().encode("utf-16"), None),
        (BODY + b"x", 422),
        (BODY[:-1], 422),
        (b"", 422),
        (b"null", 422),
        (b"[" * 100_000 + b"]" * 100_000, None),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, None),
        (b"\xff\xfe\xfd", None),
        (BODY.replace(b"UA", b"\xff\xff"), None),
        (b"9" * 10_000, None),
    ],
)
def test_both_ways_answer_alike(pair: Pair, body: bytes, status: int | None) -> None:
    found = pair.same(body)
    assert found in ((200, 400, 422) if status is None else (status,))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"flights":[' + b",".join([BODY] * 10_000) + b"]}", 200),
        (b'{"flights":[' + b",".join([BODY] * 10_001) + b"]}", 422),
        (b'{"flights":[' + BODY + b"," + changed(origin="BOS") + b"]}", 422),
        (b'{"flights":[]}', 422),
        (b'{"flights":[' + BODY + b"," + BODY[:-1] + b"]}", 422),
        (BODY, 422),
        (b'{"flights":[' + b" " * (8 << 20) + BODY + b"]}", 413),
    ],
)
def test_both_ways_answer_batches_alike(pair: Pair, body: bytes, status: int) -> None:
    assert pair.same(body, path="/predict/batch") == status


@pytest.mark.parametrize("kind", [None, "text/plain", "application/json; charset=utf-8", "APPLICATION/JSON", "x"])
def test_both_ways_look_at_the_content_type(pair: Pair, kind: str | None) -> None:
    assert pair.same(BODY, kind) == (415 if kind in (None, "text/plain", "x") else 200)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Bodies that are nearly right: fields changed, left out or added, bytes cut, doubled or replaced."""
    flight = {name: value for name, value in EXAMPLE.items() if draw(st.integers(0, 9))}
    for _ in range(draw(st.integers(0, 2))):
        flight[draw(st.sampled_from([*EXAMPLE, "more"]))] = draw(JSON_VALUES)
    body = bytearray(json.dumps(flight).encode())
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        position = draw(st.integers(0, len(body)))
        length = draw(st.integers(0, 3))
        body[position : position + length] = draw(st.binary(max_size=3) | st.just(bytes(body[position:])))
    return bytes(body)


def test_whatever_is_sent_both_ways_answer_alike_and_never_with_500(pair: Pair) -> None:
    @settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(body=bodies() | st.binary(max_size=200))
    def fuzz(body: bytes) -> None:
        assert pair.same(body) in (200, 400, 422)

    end = time.monotonic() + FUZZ_SECONDS
    while time.monotonic() < end:
        fuzz()  # pylint: disable=no-value-for-parameter # hypothesis gives it


def test_the_answer_is_the_one_that_the_schema_describes(plain: Service) -> None:
    content = httpx.post(f"{plain.base}/predict", json=EXAMPLE).content
    assert Prediction.model_validate_json(content, strict=True).model_dump(exclude_unset=True) == json.loads(content)


def test_a_probe_is_answered_like_a_client_and_leaves_no_trace(bundle_dir: Path, tmp_path: Path) -> None:
    def seen(service: Service) -> float:
        lines = httpx.get(f"{service.base}/metrics").text.splitlines()
        names = ("model_predictions_total", "model_probability_count", "model_feature_missing_total", "journal_written")
        return sum(float(line.split()[-1]) for line in lines if line.startswith(names))

    settings = {"ONTIME_BAKED_MODEL": str(bake(bundle_dir, "7", tmp_path / "baked"))}
    with started(tmp_path, ONTIME_JOURNAL_URL=f"sqlite:///{tmp_path}/journal.db", **settings) as service:
        probed = httpx.post(f"{service.base}/predict?probe=true", json=EXAMPLE).json()
        assert seen(service) == 0
        asked = httpx.post(f"{service.base}/predict", json=EXAMPLE).json()
        assert probed | {"prediction_id": ""} == asked | {"prediction_id": ""}
        wait_for("the prediction is counted and written", lambda: seen(service) >= 3)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as journal:
        assert journal.execute("SELECT id FROM predictions").fetchall() == [(asked["prediction_id"],)]


def test_both_ways_are_counted_alike(plain: Service) -> None:
    watched = [
        'http_requests_total{handler="/predict",method="POST",status="2xx"}',
        'http_requests_total{handler="/predict",method="POST",status="4xx"}',
        'http_request_duration_seconds_count{handler="/predict",method="POST"}',
        "http_request_duration_highr_seconds_count",
        'model_inference_seconds_count{model_version="7"}',
        'model_probability_count{model_version="7"}',
        'model_predictions_total{model_version="7",outcome="alert"}',
        'model_feature_missing_total{feature="temperature_f"}',
        'model_feature_unseen_total{feature="carrier"}',
    ]

    def send(path: str) -> None:
        for body in (BODY, changed(weather=None, carrier="ZZ"), b"{}"):
            httpx.post(plain.base + path, content=body, headers={"Content-Type": "application/json"})

    short, ordinary = (plain.growth(watched, partial(send, path)) for path in ("/predict", "/predict?explain=false"))
    assert short == ordinary
    assert short[:2] == [2, 1] and short[-2:] == [1, 1]


def test_an_explanation_adds_up_and_starts_with_what_matters_most(plain: Service) -> None:
    answer = httpx.post(f"{plain.base}/predict?explain=true", json=EXAMPLE | {"carrier": "ZZ"}).json()
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


def test_without_a_model_both_ways_say_so(tmp_path: Path) -> None:
    with started(tmp_path, "livez", ONTIME_BAKED_MODEL=str(tmp_path), ONTIME_JOURNAL_URL="none") as service:
        assert Pair(service.base).same(BODY) == 503


def test_an_unexpected_error_is_a_problem_without_its_reason() -> None:
    app = create_app(Settings(journal_url=""))
    app.state.served = "no model"

    async def ask(path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.post(path, json=EXAMPLE)

    for path in ("/predict", "/predict?explain=false"):
        answer = asyncio.run(ask(path))
        assert answer.status_code == 500 and answer.headers["X-Request-ID"]
        assert "no model" not in answer.text and "Traceback" not in answer.text
    assert 'status="5xx"} 2.0' in app.state.metrics.exposition().decode()
