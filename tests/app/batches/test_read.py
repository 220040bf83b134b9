"""Batches of every format: the same predictions to the bit, and never an error that is not the schema's."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pytest
from fastapi import HTTPException

from app.api.edge.bodies import Invalid
from app.api.predictor import Predictor
from app.api.routes.batch_body import BATCH
from app.batches.received import Received
from app.interface import EXAMPLE, compute_one
from app.metrics import Metrics
from app.model import bundles
from app.model.served import ServedModel
from tests.support.clients.batches import (
    HOUR,
    WRITERS,
    as_columns,
    as_json,
    by_column,
    flights,
    replaced,
    stream,
    table,
)

ROWS = flights(120)
GOOD = table(ROWS)
UNREADABLE = "body: not a readable Arrow IPC stream: "
Risks = Callable[[Received], list[float]]


@pytest.fixture(name="risks")
def risks_of(bundle: bundles.Bundle) -> Risks:
    """Return a function from a batch to its probabilities."""
    predictor, served = Predictor(Metrics()), ServedModel("flight-delay", "7", "production", None, bundle)
    return lambda batch: predictor.batch(served, batch).probabilities


def errors(read: Callable[[bytes], Any], body: bytes) -> list[str]:
    """Return the fields and messages of the errors, none if there are none."""
    try:
        read(body)
    except Invalid as err:
        return [f"{error.field}: {error.message}" for error in err.errors]
    return []


def test_formats_have_the_bits_of_lightgbm(bundle: bundles.Bundle, bundle_dir: Path, risks: Risks) -> None:
    requests = BATCH.judged(as_json(ROWS)).requests
    features = [compute_one(request, bundle.lookups) for request in requests]
    expected = lightgbm.Booster(model_file=bundle_dir / bundles.MODEL_FILE).predict(np.array(features)).tolist()
    assert len(set(expected)) > 10
    assert [bundle.booster.predict_single(row) for row in features] == expected
    for batch in (BATCH.json(as_json(ROWS)), BATCH.json(as_columns(ROWS)), BATCH.judged(as_columns(ROWS))):
        assert list(batch.requests) == requests and risks(batch) == expected
    for name, writer in WRITERS.items():
        batch = BATCH.arrow(writer(ROWS))
        assert list(batch.requests) == requests and risks(batch) == expected, name
        assert isinstance(batch.requests, list) == (name == "times as text"), f"{name}: an object for each row"


def test_optional_columns_may_be_absent_or_null(risks: Risks) -> None:
    rows = [row | {"weather": None, "flight_number": None} for row in ROWS]
    absent = GOOD.drop_columns(["weather", "flight_number"])
    expected = risks(BATCH.json(as_json(rows)))
    nothing = replaced(replaced(GOOD, "weather", pa.nulls(120)), "flight_number", pa.nulls(120))
    assert risks(BATCH.arrow(stream(absent))) == risks(BATCH.arrow(stream(nothing))) == expected
    lists = {name: values for name, values in by_column(rows).items() if rows[0][name] is not None}
    assert risks(BATCH.json(json.dumps({"columns": lists}).encode())) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"carrier": "ua"},
        {"carrier": None},
        {"origin": "BOS"},
        {"dest": "EWR", "origin": "EWR"},
        {"dest": "SÃO"},
        {"scheduled_arrival": "2013-07-03T18:15:00"},
        {"scheduled_departure": "1970-01-01T00:00:00"},
        {"scheduled_departure": "2013-11-03T01:45:00", "scheduled_arrival": "2013-11-03T01:35:00"},
        {"flight_number": 1.5},
        {"flight_number": 10_000},
        {"weather": []},
        {"weather": [HOUR] * 8},
        {"weather": [None]},
        {"weather": [HOUR | {"humidity_pct": 101.0}]},
        {"weather": [HOUR | {"pressure_mb": None}]},
    ],
)
def test_formats_have_the_same_errors(change: dict[str, Any]) -> None:
    rows = [ROWS[0], EXAMPLE | {"flight_number": None}, EXAMPLE | {"flight_number": None} | change, ROWS[1]]
    found = errors(BATCH.json, as_json(rows))
    moved = [re.sub(r"^flights\.(\d+)\.(\w+)", r"columns.\2.\1", error) for error in found]
    assert errors(BATCH.json, as_columns(rows)) == moved
    assert errors(BATCH.arrow, stream(table(rows))) == moved
    assert errors(BATCH.arrow, stream(table(rows), 2, compression="zstd")) == moved


def test_errors_of_many_rows_are_counted() -> None:
    with pytest.raises(Invalid) as caught:
        BATCH.arrow(stream(table([EXAMPLE | {"dest": "EWR"}] * 5000)))
    assert (len(caught.value.errors), caught.value.omitted) == (100, 4900)
    assert caught.value.errors[7].field == "columns.dest.7"


def retyped(name: str, values: Any) -> bytes:
    """Return a stream with another column of this name."""
    return stream(replaced(GOOD, name, values))


ARRIVAL = GOOD["scheduled_arrival"]
LONG = "x" * 4_000_000
VIEWS = [None, pa.py_buffer(struct.pack("<i4sii", len(LONG), b"xxxx", 0, 0) * 120), pa.py_buffer(LONG.encode())]
HUGE = pa.DictionaryArray.from_arrays(pa.array([0] * 120, pa.int8()), pa.array(["x" * (100 << 20)]))
BAD: list[tuple[bytes, str]] = [
    (b"", UNREADABLE),
    (b"ARROW1\0\0" + bytes(50), UNREADABLE + "Expected to read 1330795073 metadata bytes, but only read 54; it is an"),
    (stream(GOOD)[:3000], UNREADABLE + "Expected to be able to read"),
    (stream(table([EXAMPLE] * 3000), 2), UNREADABLE + "it has more than 1000 messages"),
    (retyped("weather", pa.array([[{"visibility_mi": 1.5}] * 1000] * 120)), UNREADABLE + "column 'weather': its lists"),
    (retyped("carrier", pa.Array.from_buffers(pa.string_view(), 120, VIEWS)), UNREADABLE + "column 'carrier': its te"),
    (stream(replaced(GOOD, "carrier", HUGE), compression="zstd"), UNREADABLE + "it has more than 67108864 bytes"),
    (stream(replaced(GOOD, "carrier", HUGE), compression="lz4"), UNREADABLE + "it has more than 67108864 bytes"),
    (retyped("carrier", pa.array(range(120))), "columns.carrier: The column must have text, not int"),
    (retyped("dest", pa.array([b"SFO"] * 120)), "columns.dest: The column must have text, not binary"),
    (retyped("weather", pa.array([1.5] * 120)), "columns.weather: The column must have lists, not float"),
    (
        retyped("scheduled_arrival", ARRIVAL.cast(pa.timestamp("us", "UTC"))),
        "columns.scheduled_arrival: The column must have timestamps without time zone, or text, not timestamp with",
    ),
    (
        retyped("scheduled_arrival", ARRIVAL.cast(pa.date32())),
        "columns.scheduled_arrival: The column must have timestamps without time zone, or text, not date",
    ),
    (
        retyped("weather", pa.array([[{"temperature_f": "x"}]] * 120)),
        "columns.weather.temperature_f: The column must have numbers, not text",
    ),
    (stream(GOOD.append_column("delay", pa.array([1] * 120))), "columns.delay: Extra inputs are not permitted"),
    (stream(GOOD.append_column("dest", GOOD["dest"])), "columns.dest: The column is given more than once"),
    (stream(GOOD.drop_columns(["origin"])), "columns.origin: Field required"),
    (stream(GOOD.slice(0, 0)), "columns: List should have at least 1 item after validation, not 0"),
    (stream(table([EXAMPLE] * 10_001)), "columns: List should have at most 10000 items after validation, not 10001"),
    (
        stream(pa.concat_tables([table([EXAMPLE] * 1000)] * 1000).combine_chunks()),
        "columns: List should have at most 10000 items after validation, not 1000000",
    ),
]


@pytest.mark.parametrize(
    ("body", "expected"), BAD, ids=[f"{i} {expected[-30:]}" for i, (_, expected) in enumerate(BAD)]
)
def test_a_bad_stream_gets_one_sentence(body: bytes, expected: str) -> None:
    found = errors(BATCH.arrow, body)
    assert len(found) == 1 and found[0].startswith(expected), found


@pytest.mark.parametrize("count", [0, 10_001])
def test_the_number_of_rows_has_the_sentence_of_arrow(count: int) -> None:
    (found,) = errors(BATCH.json, as_json([EXAMPLE] * count))
    limit = "at most 10000 items" if count else "at least 1 item"
    assert found == f"flights: List should have {limit} after validation, not {count}"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, ["columns.carrier: Field required"]),
        ({"carrier": "UA"}, ["columns.carrier: Input should be a valid list"]),
        ({"carrier": ["UA", "AA"]}, ["columns.origin: List should have 2 items, as carrier has, not 1"]),
        ({"delay": [1]}, ["columns.delay: Extra inputs are not permitted"]),
        (5, ["columns: Input should be a valid dictionary or instance of Columns"]),
    ],
)
def test_json_by_columns_has_errors_of_its_own(columns: Any, expected: list[str]) -> None:
    lists = {name: [value] for name, value in EXAMPLE.items()}
    value = lists | columns if columns and isinstance(columns, dict) else columns
    assert errors(BATCH.json, json.dumps({"columns": value}).encode())[: len(expected)] == expected


def test_an_invalid_body_of_many_values_is_refused() -> None:
    with pytest.raises(HTTPException) as caught:
        BATCH.json(b'{"flights":[' + b"{}," * 1_000_000 + b"{}]}")
    assert caught.value.status_code == 413
    rows = [EXAMPLE] * 7000 + [EXAMPLE | {"origin": "BOS"}]
    assert len(as_json(rows)) > 2 << 20
    assert errors(BATCH.json, as_json(rows)) == ["flights.7000.origin: Input should be 'EWR', 'JFK' or 'LGA'"]


def damaged(rng: random.Random, whole: bytes) -> bytes:
    """Return a stream with up to 32 wrong bytes, and sometimes without its end."""
    body = bytearray(whole)
    for _ in range(rng.randint(0, 4)):
        start = rng.randrange(rng.choice([1500, len(body)]))
        part = rng.choice([rng.randbytes(rng.randint(1, 8)), bytes(8), b"\xff" * 8, b"\x7f\xff\xff\xff"])
        body[start : start + len(part)] = part
    return bytes(body[: rng.choice([len(body), len(body), rng.randrange(len(body))])])


@pytest.mark.parametrize("count", [2000, pytest.param(60_000, marks=pytest.mark.nightly)])
def test_a_damaged_stream_is_refused_or_read(count: int, risks: Risks) -> None:
    rng, streams = random.Random(count), [writer(ROWS[:20]) for writer in WRITERS.values()]
    read = 0
    for _ in range(count):
        body = damaged(rng, rng.choice(streams))
        try:
            batch = BATCH.arrow(body)
        except Invalid as err:
            assert err.errors[0].message
            continue
        read += 1
        assert 1 <= len(list(batch.requests)) == len(risks(batch)) <= 10_000
    assert count / 50 < read < count / 2
