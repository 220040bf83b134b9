"""Batches over HTTP: the same answers in every format, and bad ones refused in a sentence."""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from sqlalchemy import select

from app.api.edge import MAX_BODIES
from app.columns.stream import MEDIA_TYPE
from app.interface import EXAMPLE, Request
from app.journal.blocks import features_of, requests_of
from app.journal.database import connect
from app.journal.tables import blocks
from app.model.bundle import Bundle
from app.model.prediction import KEPT
from tests.conftest import ROOT, bake
from tests.support import batches
from tests.support.batches import as_columns, as_json, flights, stream, table
from tests.support.processes import wait_for
from tests.support.service import Service, Start, started

JSON = "application/json"
ROWS = flights(150)


@pytest.fixture(scope="module")
def service(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service without journal."""
    folder = tmp_path_factory.mktemp("batches")
    baked = str(bake(bundle_dir, "7", folder / "baked"))
    with started(folder, ONTIME_BAKED_MODEL=baked, ONTIME_JOURNAL_URL="none") as found:
        yield found


def post(service: Service, body: bytes, kind: str, query: str = "", **headers: str) -> httpx.Response:
    """Send a batch."""
    return httpx.post(
        f"{service.base}/predict/batch{query}", content=body, headers={"Content-Type": kind, **headers}, timeout=60
    )


def predictions(response: httpx.Response) -> list[dict[str, Any]]:
    """Return the predictions of an answer, of either format, without their ids."""
    assert response.status_code == 200, response.text
    if response.headers["Content-Type"] == MEDIA_TYPE:
        found = pa.ipc.open_stream(io.BytesIO(response.content)).read_all()
        found.validate(full=True)
        rows: list[dict[str, Any]] = found.to_pylist()
    else:
        rows = response.json()["predictions"]
    assert len({row.pop("prediction_id") for row in rows}) == len(rows)
    return rows


@pytest.mark.parametrize("query", ["", "?explain=false"])  # a query takes the ordinary route
def test_every_format_is_answered_with_the_same_numbers(service: Service, bundle: Bundle, query: str) -> None:
    expected = predictions(post(service, as_json(ROWS), JSON, query))
    alone = [httpx.post(f"{service.base}/predict", json=row).json() for row in ROWS[:20]]
    assert [row | {"prediction_id": ""} for row in expected[:20]] == [row | {"prediction_id": ""} for row in alone]
    assert len({row["probability"] for row in expected}) > 10
    assert {row["threshold"] for row in expected} == {bundle.threshold}
    answers = [
        post(service, as_columns(ROWS), JSON, query),
        post(service, as_json(ROWS), JSON, query, Accept=MEDIA_TYPE),
    ]
    answers += [
        post(service, batches.WRITERS[name](ROWS), MEDIA_TYPE, query) for name in ("pandas", "Polars", "DuckDB")
    ]
    answers.append(post(service, stream(table(ROWS)), MEDIA_TYPE, query, Accept=JSON))
    kinds = [answer.headers["Content-Type"] for answer in answers]
    assert kinds == [JSON, MEDIA_TYPE, MEDIA_TYPE, MEDIA_TYPE, MEDIA_TYPE, JSON]
    assert all(answer.headers["X-Model-Version"] == "7" for answer in answers)
    assert [predictions(answer) for answer in answers] == [expected] * len(answers)


BAD = {
    "not Arrow": (b"x" * 100, MEDIA_TYPE, 422, "body: not a readable Arrow IPC stream: no message starts at byte 0"),
    "JSON as Arrow": (as_json(ROWS), MEDIA_TYPE, 422, "body: not a readable Arrow IPC stream: no message starts"),
    "Arrow as JSON": (stream(table(ROWS)), JSON, 400, "The body is not UTF-8"),
    "truncated": (
        stream(table(ROWS))[:9000],
        MEDIA_TYPE,
        422,
        "body: not a readable Arrow IPC stream: it is truncated",
    ),
    "compressed": (
        stream(table(ROWS), compression="zstd"),
        MEDIA_TYPE,
        422,
        "body: not a readable Arrow IPC stream: its b",
    ),
    "an impossible row": (
        stream(table([*ROWS, EXAMPLE | {"dest": "EWR"}])),
        MEDIA_TYPE,
        422,
        "columns.dest.150: must be",
    ),
    "no rows": (stream(table(ROWS).slice(0, 0)), MEDIA_TYPE, 422, "columns: List should have at least 1 item"),
    "too many rows": (
        stream(table([EXAMPLE] * 10_001)),
        MEDIA_TYPE,
        422,
        "columns: List should have at most 10000 items",
    ),
    "too many bytes": (
        bytes(MAX_BODIES["/predict/batch"] + 1),
        MEDIA_TYPE,
        413,
        "The body has more than 8388608 bytes.",
    ),
    "another type": (
        b"",
        "application/vnd.apache.arrow.file",
        415,
        f"The Content-Type must be {JSON} or {MEDIA_TYPE}, not",
    ),
    "many objects": (
        b'{"flights":[' + b"{}," * 1_000_000 + b"{}]}",
        JSON,
        413,
        "A body of more than 2097152 bytes must",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_batch_is_refused_in_a_sentence_and_the_next_one_on_its_connection_answered(
    service: Service, name: str
) -> None:
    body, kind, status, detail = BAD[name]
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    for path in ("/predict/batch", "/predict/batch?explain=false"):
        connection.request("POST", path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        problem = json.loads(answer.read())
        assert (answer.status, answer.getheader("Content-Type")) == (status, "application/problem+json")
        assert problem["detail"].startswith(detail), problem
        connection.request("POST", "/predict/batch", stream(table(ROWS[:2])), {"Content-Type": MEDIA_TYPE})
        answer = connection.getresponse()
        assert answer.status == 200 and len(answer.read()) > 500
    connection.close()


def test_a_body_under_a_content_encoding_is_415(service: Service) -> None:
    packed = zlib.compress(stream(table(ROWS)))
    assert post(service, packed, MEDIA_TYPE, **{"Content-Encoding": "deflate"}).status_code == 415


def test_a_body_that_stops_disturbs_nobody(service: Service) -> None:
    body = stream(table(ROWS))
    head = (
        f"POST /predict/batch HTTP/1.1\r\nHost: x\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    before = service.metric('http_requests_total{handler="/predict/batch",method="POST",status="5xx"}')
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(head.encode() + body[:5000])
        connection.shutdown(socket.SHUT_WR)
        connection.recv(100)
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as waiting:
        waiting.sendall(head.encode() + body[:5000])
        answer = waiting.recv(100)  # after the time limit
        assert answer.startswith(b"HTTP/1.1 504"), answer
    assert post(service, body, MEDIA_TYPE).status_code == 200
    assert service.metric('http_requests_total{handler="/predict/batch",method="POST",status="5xx"}') == before + 1


def test_both_routes_count_a_batch_alike(service: Service) -> None:
    watched = [
        'http_requests_total{handler="/predict/batch",method="POST",status="2xx"}',
        'model_inference_seconds_count{model_version="7"}',
        'model_probability_count{model_version="7"}',
        'model_probability_bucket{le="0.5",model_version="7"}',
        'model_feature_missing_total{feature="temperature_f"}',
        'model_feature_unseen_total{feature="carrier"}',
    ]

    def send(query: str) -> None:
        for body, kind in ((as_json(ROWS), JSON), (stream(table(ROWS)), MEDIA_TYPE)):
            assert post(service, body, kind, query).status_code == 200

    found, ordinary = (service.growth(watched, partial(send, query)) for query in ("", "?explain=false"))
    assert found == ordinary and found[:3] == [2, 2, 2 * len(ROWS)] and min(found) > 0


def test_batches_of_every_format_are_journalled(baked: Path, tmp_path: Path, start: Start) -> None:
    service = start(baked_model=baked, journal_url=f"sqlite:///{tmp_path}/journal.db")
    rows = ROWS[:5]
    ids = []
    for body, kind in ((as_json(rows), JSON), (as_columns(rows), JSON), (stream(table(rows)), MEDIA_TYPE)):
        answer = post(service, body, kind, Accept=JSON)
        ids += [row["prediction_id"] for row in answer.json()["predictions"]]
    outcomes = [{"prediction_id": name, "status": "arrived", "delay_minutes": 3} for name in ids]
    recorded = httpx.post(f"{service.base}/outcomes/batch", json={"outcomes": outcomes}).json()
    assert recorded == {"recorded": 15, "unchanged": 0, "unknown": []}


@pytest.mark.parametrize("name", ["pandas", "Polars", "DuckDB", "curl"])
def test_the_examples_of_the_documentation_work(service: Service, name: str) -> None:
    page = (ROOT / "docs/batches.md").read_text(encoding="utf-8").replace("localhost:8000", f"127.0.0.1:{service.port}")
    language, code = re.findall(rf"^## {name}\n\n```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0]
    command = (
        ["bash", "-c", code] if language == "bash" else [sys.executable, "-c", f"{code}\nprint(response.status_code)"]
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("probability" if language == "bash" else "200") in done.stdout


def bombs() -> dict[str, bytes]:
    """Return small streams whose values would take much memory."""
    long = "x" * 4_000_000
    rows = 9000
    words = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int16()), pa.array([long]))
    plain = table([EXAMPLE] * rows)
    view = struct.pack("<i4sii", len(long), b"xxxx", 0, 0)
    buffers = [None, pa.py_buffer(view * rows), pa.py_buffer(long.encode())]
    views = pa.Array.from_buffers(pa.string_view(), rows, buffers)
    hours = pa.array([[EXAMPLE["weather"][0]] * 1000] * 100)
    return {
        "a long word of a dictionary": stream(batches.replaced(plain, "carrier", words)),
        "views of one long text": stream(batches.replaced(plain, "carrier", views)),
        "long lists": stream(batches.replaced(plain.slice(0, 100), "weather", hours)),
    }


@pytest.mark.long
@pytest.mark.parametrize("name", ["a long word of a dictionary", "views of one long text", "long lists"])
def test_a_small_stream_of_large_values_takes_little_memory(baked: Path, start: Start, name: str) -> None:
    service, body = start(baked_model=baked, journal_url="none", request_seconds=60), bombs()[name]
    for _ in range(2):
        assert post(service, stream(table([EXAMPLE] * 9000)), MEDIA_TYPE).status_code == 200
    with service.peak() as peak:
        answer = post(service, body, MEDIA_TYPE)
    assert answer.status_code in (413, 422) and len(answer.content) <= 64 << 10
    assert peak() < 200e6 and len(body) < MAX_BODIES["/predict/batch"]


def test_the_journal_has_the_requests_and_features_of_every_format(bundle_dir: Path, tmp_path: Path) -> None:
    rows, url = [row for row in ROWS if row["weather"]], f"sqlite:///{tmp_path}/journal.db"
    bodies = {
        "rows": (as_json(rows), JSON),
        "columns": (as_columns(rows), JSON),
        "arrow": (stream(table(rows)), MEDIA_TYPE),
    }
    others = [
        as_json(rows) + b" " * KEPT * len(rows),  # larger than what the journal keeps as it is
        as_columns(rows).decode().encode("utf-16"),
        b"\xef\xbb\xbf" + as_columns(rows),
    ]
    with started(
        tmp_path, ONTIME_BAKED_MODEL=str(bake(bundle_dir, "7", tmp_path / "baked")), ONTIME_JOURNAL_URL=url
    ) as service:
        for body, kind in [*bodies.values(), *((other, JSON) for other in others)]:
            predictions(post(service, body, kind))
        wait_for("they are written", lambda: service.metric("journal_written_total") == 6 * len(rows))
    with connect(url).connect() as connection:
        stored = connection.execute(select(blocks).order_by(blocks.c.first_id)).all()
    features = [features_of(row.features, row.rows).tolist() for row in stored]
    whole = [Request.model_validate(row) for row in rows]
    for row in stored:
        told = [Request.model_validate(request) for request in requests_of(row.requests, row.requests_format)]
        assert told == whole * (row.rows // len(rows))
    forms = [row.requests_format for row in stored]
    assert sorted(set(forms)) == ["arrow", "rows"] and sum(row.rows for row in stored) == 6 * len(rows)
    flat = [repr(line) for block in features for line in block]
    assert flat[: len(rows)] * 6 == flat and len(set(flat)) > 10
