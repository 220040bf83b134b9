"""Batches over HTTP: the same answers in every format, and bad ones refused in a sentence."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from app.api.edge.middleware import MAX_BODIES
from app.batches.received import KEPT
from app.batches.stream import MEDIA_TYPE
from app.interface import EXAMPLE, Request
from app.journal.blocks import features_of, holding, requests_of
from app.journal.database import connect
from app.journal.tables import blocks
from app.model.bundles import Bundle
from tests.support.clients.asgi import Client, make_service
from tests.support.clients.batches import WRITERS, as_columns, as_json, flights, replaced, stream, table
from tests.support.journal import written
from tests.support.processes import wait_for
from tests.support.repositories.clone import ROOT
from tests.support.servers.service import Service, Start

JSON = "application/json"
PATH = "/predict/batch"
ROWS = flights(150)
UNREADABLE = "body: not a readable Arrow IPC stream: "


@pytest.fixture(name="client", scope="module")
def client_of_a_service(bundle: Bundle) -> Client:
    """A service in this process, without a journal."""
    return Client(make_service(bundle))


def predictions(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the predictions of an answer, of either format."""
    assert answer.status_code == 200, answer.text
    if answer.headers["Content-Type"] == MEDIA_TYPE:
        found = pa.ipc.open_stream(io.BytesIO(answer.content)).read_all()
        found.validate(full=True)
        rows: list[dict[str, Any]] = found.to_pylist()
    else:
        rows = answer.json()["predictions"]
    assert len({row["prediction_id"] for row in rows}) == len(rows)
    return rows


def without_ids(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return predictions that can be compared."""
    return [row | {"prediction_id": ""} for row in rows]


def test_formats_have_the_same_answers(client: Client, bundle: Bundle) -> None:
    expected = without_ids(predictions(client.post(PATH, as_json(ROWS))))
    single = [client.request("POST", "/predict", as_json(row)[11:-1], {"Content-Type": JSON}) for row in ROWS[:20]]
    assert without_ids([answer.json() for answer in single]) == expected[:20]
    assert len({row["probability"] for row in expected}) > 10
    assert {row["threshold"] for row in expected} == {bundle.threshold}
    requests = [
        (as_columns(ROWS), JSON, "*/*", JSON),
        (as_json(ROWS), JSON, MEDIA_TYPE, MEDIA_TYPE),
        (WRITERS["pandas"](ROWS), MEDIA_TYPE, "*/*", MEDIA_TYPE),
        (WRITERS["Polars"](ROWS), MEDIA_TYPE, "*/*", MEDIA_TYPE),
        (WRITERS["LZ4"](ROWS), MEDIA_TYPE, JSON, JSON),
    ]
    for body, kind, accept, expected_kind in requests:
        answer = client.post(PATH, body, {"Content-Type": kind, "Accept": accept})
        assert (answer.headers["Content-Type"], answer.headers["X-Model-Version"]) == (expected_kind, "7")
        assert without_ids(predictions(answer)) == expected


@pytest.mark.parametrize(
    ("body", "kind", "status", "detail"),
    [
        (as_json(ROWS), MEDIA_TYPE, 422, UNREADABLE),
        (stream(table(ROWS))[:9000], MEDIA_TYPE, 422, UNREADABLE),
        (stream(table(ROWS)), JSON, 400, "The body is not UTF-8"),
        (stream(table([*ROWS, EXAMPLE | {"dest": "EWR"}])), MEDIA_TYPE, 422, "columns.dest.150: must be"),
        (stream(table(ROWS).slice(0, 0)), MEDIA_TYPE, 422, "columns: List should have at least 1 item"),
        (bytes(MAX_BODIES[PATH] + 1), MEDIA_TYPE, 413, "The body has more than 8388608 bytes."),
        (b"", "application/vnd.apache.arrow.file", 415, f"The Content-Type must be {JSON} or {MEDIA_TYPE}, not"),
        (b'{"flights":[' + b"{}," * 1_000_000 + b"{}]}", JSON, 413, "A body of more than 2097152 bytes must"),
    ],
    ids=["json", "cut", "arrow as json", "row", "no rows", "bytes", "type", "objects"],
)
def test_a_bad_batch_is_refused_in_a_sentence(client: Client, body: bytes, kind: str, status: int, detail: str) -> None:
    answer = client.post(PATH, body, {"Content-Type": kind})
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert answer.json()["detail"].startswith(detail)


def test_a_content_encoding_is_415(client: Client) -> None:
    headers = {"Content-Type": MEDIA_TYPE, "Content-Encoding": "deflate"}
    assert client.post(PATH, b"x", headers).status_code == 415


@pytest.mark.parametrize("name", ["pandas", "Polars", "curl"])
def test_the_examples_of_the_documentation_work(journalled: Service, name: str) -> None:
    page = (ROOT / "docs/batches.md").read_text(encoding="utf-8")
    page = page.replace("localhost:8000", f"127.0.0.1:{journalled.port}")
    language, code = re.findall(rf"^## {name}\n\n```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0]
    python = [sys.executable, "-c", f"{code}\nprint(response.status_code)"]
    command = ["bash", "-c", code] if language == "bash" else python
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("probability" if language == "bash" else "200") in done.stdout


def bomb(name: str) -> bytes:
    """Return a small stream whose values would take much memory."""
    long, rows = "x" * 4_000_000, 9000
    plain = table([EXAMPLE] * rows)
    if name == "long lists":
        hours = pa.array([[EXAMPLE["weather"][0]] * 1000] * 100)
        return stream(replaced(plain.slice(0, 100), "weather", hours))
    words = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int16()), pa.array([long * 250]))
    if name == "a compressed word":
        return stream(replaced(plain, "carrier", words), compression="zstd")
    if name == "a long word":
        words = pa.DictionaryArray.from_arrays(words.indices, pa.array([long]))
        return stream(replaced(plain, "carrier", words))
    view = struct.pack("<i4sii", len(long), b"xxxx", 0, 0)
    buffers = [None, pa.py_buffer(view * rows), pa.py_buffer(long.encode())]
    return stream(replaced(plain, "carrier", pa.Array.from_buffers(pa.string_view(), rows, buffers)))


@pytest.mark.long
def test_a_small_stream_takes_little_memory(baked: Path, start: Start) -> None:
    service = start(baked_model=baked, journal_url="none", request_seconds=60)
    headers = {"Content-Type": MEDIA_TYPE}
    for content in (stream(table([EXAMPLE] * 9000)), WRITERS["LZ4"](ROWS)):  # allocates what is reused
        assert httpx.post(service.base + PATH, content=content, headers=headers, timeout=60).status_code == 200
    for name in ("a long word", "a compressed word", "views of one text", "long lists"):
        body = bomb(name)
        assert len(body) < MAX_BODIES[PATH]
        with service.peak() as peak:
            answer = httpx.post(service.base + PATH, content=body, headers=headers, timeout=60)
        assert answer.status_code in (413, 422) and len(answer.content) <= 64 << 10, name
        assert peak() < 200e6, name


def test_the_journal_has_the_batches_of_all_formats(journalled: Service) -> None:
    rows = [row for row in ROWS if row["weather"]]
    bodies = [
        (as_json(rows), JSON),
        (as_columns(rows), JSON),
        (stream(table(rows)), MEDIA_TYPE),
        (as_json(rows) + b" " * KEPT * len(rows), JSON),  # larger than what the journal keeps as received
        (b"\xef\xbb\xbf" + as_columns(rows), JSON),
    ]
    whole = [Request.model_validate(row) for row in rows]
    features = []
    for body, kind in bodies:
        headers = {"Content-Type": kind, "Accept": JSON}
        answer = httpx.post(journalled.base + PATH, content=body, headers=headers, timeout=60)
        ids = [row["prediction_id"] for row in predictions(answer)]
        wait_for("they are written", lambda: set(ids) <= written(journalled.journal))  # pylint: disable=W0640
        with connect(journalled.journal).connect() as connection:
            columns = (blocks.c.rows, blocks.c.requests, blocks.c.requests_format, blocks.c.features)
            ((block, positions),) = holding(connection, sorted(ids), *columns)
        stored = requests_of(block.requests, block.requests_format)
        assert [Request.model_validate(stored[positions[name]]) for name in ids] == whole
        features.append(features_of(block.features, block.rows)[[positions[name] for name in ids]].tobytes())
    assert len(set(features)) == 1
