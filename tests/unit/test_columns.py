"""Batches of every format: the same predictions to the bit, and never an error that is not the schema's."""

from __future__ import annotations

import json
import math
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pytest
from fastapi import HTTPException
from hypothesis import given, settings
from hypothesis import strategies as st

from app.api.batches import BATCH
from app.api.bodies import Invalid
from app.columns.answer import Texts, write
from app.columns.batches import read_json, rows_of
from app.columns.rows import Refused
from app.interface import EXAMPLE, compute_one
from app.metrics import Metrics
from app.model import bundle as model
from app.model.prediction import Predictor, Received
from app.model.served import ServedModel
from tests.support import batches
from tests.support.batches import HOUR, WRITERS, as_columns, as_json, flights, replaced, stream, table

ROWS = flights(120)
Risks = Callable[[Received], list[float]]


@pytest.fixture(name="risks")
def risks_of(bundle: model.Bundle) -> Risks:
    """Return a function from a batch to its probabilities."""
    predictor, served = Predictor(Metrics()), ServedModel("flight-delay", "7", "production", None, bundle)
    return lambda batch: predictor.batch(served, batch).probabilities


def errors(call: Callable[[], Any]) -> list[str]:
    """Return the fields and messages of the errors, none if there are none."""
    try:
        call()
    except Invalid as err:
        return [f"{error.field}: {error.message}" for error in err.errors]
    return []


def sentence(body: bytes) -> str:
    """Return the only error of a stream."""
    (found,) = errors(lambda: BATCH.arrow(body))
    return found


def test_all_formats_give_the_prediction_of_lightgbm_to_the_bit(
    bundle: model.Bundle, bundle_dir: Path, risks: Risks
) -> None:
    requests = BATCH.judged(as_json(ROWS)).requests
    features = [compute_one(request, bundle.lookups) for request in requests]
    expected = lightgbm.Booster(model_file=bundle_dir / model.MODEL_FILE).predict(np.array(features)).tolist()
    assert len(set(expected)) > 10
    assert [bundle.booster.predict_single(row) for row in features] == expected
    for batch in (BATCH.json(as_json(ROWS)), BATCH.json(as_columns(ROWS)), BATCH.judged(as_columns(ROWS))):
        assert list(batch.requests) == requests and risks(batch) == expected
    for name, writer in WRITERS.items():
        batch = BATCH.arrow(writer(ROWS))
        assert list(batch.requests) == requests and risks(batch) == expected, name


@pytest.mark.parametrize("name", sorted(set(WRITERS) - {"times as text"}))
def test_what_programs_write_is_read_without_an_object_for_each_row(name: str) -> None:
    assert not isinstance(BATCH.arrow(WRITERS[name](ROWS)).requests, list)


def test_valid_json_is_read_by_msgspec() -> None:
    assert (read_json(as_json(ROWS)).format, read_json(as_columns(ROWS)).format) == ("rows", "columns")


def test_optional_columns_may_be_absent_or_null(risks: Risks) -> None:
    rows = [row | {"weather": None, "flight_number": None} for row in ROWS]
    absent = table(ROWS).drop_columns(["weather", "flight_number"])
    expected = risks(BATCH.json(as_json(rows)))
    nothing = replaced(replaced(table(ROWS), "weather", pa.nulls(len(ROWS))), "flight_number", pa.nulls(len(ROWS)))
    assert risks(BATCH.arrow(stream(absent))) == risks(BATCH.arrow(stream(nothing))) == expected
    lists = {name: values for name, values in batches.by_column(rows).items() if rows[0][name] is not None}
    assert risks(BATCH.json(json.dumps({"columns": lists}).encode())) == expected


CHANGES: list[dict[str, Any]] = [
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
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_format_has_the_same_errors_by_row_and_column(change: dict[str, Any]) -> None:
    rows = [ROWS[0], EXAMPLE | {"flight_number": None}, EXAMPLE | {"flight_number": None} | change, ROWS[1]]
    found = errors(lambda: BATCH.json(as_json(rows)))
    assert found == errors(lambda: BATCH.judged(as_json(rows)))
    moved = [re.sub(r"^flights\.(\d+)\.(\w+)", r"columns.\2.\1", error) for error in found]
    assert errors(lambda: BATCH.json(as_columns(rows))) == moved
    assert errors(lambda: BATCH.arrow(stream(table(rows)))) == moved
    assert errors(lambda: BATCH.arrow(stream(table(rows), 2))) == moved


def test_the_errors_of_many_rows_are_counted() -> None:
    rows = [EXAMPLE | {"dest": "EWR"}] * 5000
    with pytest.raises(Invalid) as caught:
        BATCH.arrow(stream(table(rows)))
    assert (len(caught.value.errors), caught.value.omitted) == (100, 4900)
    assert caught.value.errors[7].field == "columns.dest.7"


GOOD = table(ROWS)
BAD: list[tuple[bytes, str]] = [
    (b"", "body: not a readable Arrow IPC stream: it does not start with a schema"),
    (
        b"ARROW1\0\0" + bytes(50),
        "body: not a readable Arrow IPC stream: no message starts at byte 0; it is an Arrow file",
    ),
    (stream(GOOD)[:3000], "body: not a readable Arrow IPC stream: it is truncated: the message at byte"),
    (stream(GOOD, compression="zstd"), "body: not a readable Arrow IPC stream: its buffers are compressed"),
    (stream(GOOD, compression="lz4"), "body: not a readable Arrow IPC stream: its buffers are compressed"),
    (stream(replaced(GOOD, "carrier", pa.array(range(120)))), "columns.carrier: The column must have text, not int"),
    (stream(replaced(GOOD, "dest", pa.array([b"SFO"] * 120))), "columns.dest: The column must have text, not binary"),
    (
        stream(replaced(GOOD, "weather", pa.array([1.5] * 120))),
        "columns.weather: The column must have lists, not float",
    ),
    (
        stream(replaced(GOOD, "scheduled_arrival", GOOD["scheduled_arrival"].cast(pa.timestamp("us", "UTC")))),
        "columns.scheduled_arrival: The column must have timestamps without time zone, or text, not timestamp with",
    ),
    (
        stream(replaced(GOOD, "scheduled_arrival", GOOD["scheduled_arrival"].cast(pa.date32()))),
        "columns.scheduled_arrival: The column must have timestamps without time zone, or text, not date",
    ),
    (
        stream(replaced(GOOD, "weather", pa.array([[{"temperature_f": "x"}]] * 120))),
        "columns.weather.temperature_f: The column must have numbers, not text",
    ),
    (stream(GOOD.append_column("delay", pa.array([1] * 120))), "columns.delay: Extra inputs are not permitted"),
    (stream(GOOD.append_column("dest", GOOD["dest"])), "columns.dest: The column is given more than once"),
    (stream(GOOD.drop_columns(["origin"])), "columns.origin: Field required"),
    (stream(GOOD.slice(0, 0)), "columns: List should have at least 1 item after validation, not 0"),
    (
        stream(pa.concat_tables([table([EXAMPLE] * 1000)] * 1000).combine_chunks()),
        "columns: List should have at most 10000 items after validation, not 1000000",
    ),
    (stream(table([EXAMPLE] * 3000), 2), "body: not a readable Arrow IPC stream: it has more than 1000 messages"),
    (
        stream(replaced(GOOD, "weather", pa.array([[{"visibility_mi": 1.5}] * 1000] * 120))),
        "body: not a readable Arrow IPC stream: column 'weather': its lists have more than 100000 items in all",
    ),
]


@pytest.mark.parametrize(("body", "expected"), BAD, ids=[expected[-40:] for _, expected in BAD])
def test_a_bad_stream_gets_one_sentence(body: bytes, expected: str) -> None:
    found = errors(lambda: BATCH.arrow(body))
    assert len(found) == 1 and found[0].startswith(expected), found


def test_zero_rows_and_too_many_have_the_sentence_of_json() -> None:
    for count in (0, 10_001):
        rows = [EXAMPLE] * count
        (found,) = errors(lambda: BATCH.json(as_json(rows)))  # pylint: disable=cell-var-from-loop
        empty = stream(table([EXAMPLE]).slice(0, 0)) if not count else stream(table(rows))
        assert sentence(empty) == found.replace("flights", "columns")


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
    assert errors(lambda: BATCH.json(json.dumps({"columns": value}).encode()))[: len(expected)] == expected


def test_a_long_list_of_rows_that_only_pydantic_can_judge_is_refused_unless_it_is_ordinary() -> None:
    with pytest.raises(HTTPException) as caught:
        BATCH.json(b'{"flights":[' + b"{}," * 1_000_000 + b"{}]}")
    assert caught.value.status_code == 413
    rows = [EXAMPLE] * 7000 + [EXAMPLE | {"origin": "BOS"}]
    assert len(as_json(rows)) > 2 << 20
    assert errors(lambda: BATCH.json(as_json(rows))) == ["flights.7000.origin: Input should be 'EWR', 'JFK' or 'LGA'"]


FUZZ_BODIES = int(os.environ.get("FUZZ_BODIES", "2000"))
"""How many bodies to try."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["UA", "12", "2013-07-01"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*HOUR, "more"]), inner, max_size=3),
    max_leaves=5,
)
ODD_TIMES = ("", " 18:15", "t18:15:00", "T18:15:00Z", "T24:00:00", "T18:15:60", "T18", "T18:15:00+02:00", "T18:15:00,5")
ODD_NUMBERS = (1e400, 5e-324, -0.0, 12.0, 12.5, 9999.0, 1.0000000000001, 10_000, 100.5, 10**20, True, "12", math.nan)


def clock(rng: random.Random, first: int, last: int) -> str:
    """Return a time on the day of the example, to the second or with up to nine digits after it."""
    if rng.random() < 0.05:
        return "2013-07-01" + rng.choice(ODD_TIMES)
    text = f"2013-07-01{rng.choice('T T t')}{rng.randint(first, last):02d}:{rng.randrange(60):02d}"
    digits = "".join(rng.choice("0123456789") for _ in range(rng.choice([1, 3, 6, 6, 7, 9])))
    return text + rng.choice(["", f":{rng.randrange(60):02d}", f":{rng.randrange(60):02d}.{digits}"])


def nearly(rng: random.Random, odd: Any) -> dict[str, Any]:
    """Return a request that is right or nearly so."""
    row = EXAMPLE | {
        "scheduled_departure": clock(rng, 0, 18),
        "scheduled_arrival": clock(rng, 19, 23),
        "flight_number": rng.choice([None, rng.randint(1, 9999), float(rng.randint(1, 9999))]),
        "weather": [
            {
                name: rng.choice([None, value, value * rng.random()])
                for name, value in HOUR.items()
                if rng.random() < 0.4
            }
            for _ in range(rng.randrange(8))
        ]
        or None,
    }
    for hour in row["weather"] or ():
        hour.pop("pressure_mb", None)  # whose range is narrow
    if rng.random() < 0.2:
        row[rng.choice([*row, "more"])] = odd
    if row["weather"] and isinstance(row["weather"], list) and rng.random() < 0.1:
        row["weather"][0] = {rng.choice([*HOUR, "more"]): rng.choice(ODD_NUMBERS)}
    if rng.random() < 0.05:
        del row[rng.choice([*row])]
    return row


def body_of(rng: random.Random, odd: Any, damage: bytes = b"") -> bytes:
    """Return a batch by rows or by columns, perhaps with some bytes replaced."""
    rows = [nearly(rng, odd) for _ in range(rng.choice([0, 1, 1, 1, 2]))]
    by_column = {name: [row[name] for row in rows if name in row] for name in {name for row in rows for name in row}}
    body = json.dumps({"columns": by_column} if rng.random() < 0.5 else {"flights": rows}).encode()
    position = rng.randint(0, len(body))
    return body[:position] + damage + body[position + len(damage) :]


def same_by_both(body: bytes) -> bool:
    """Assert that Pydantic accepts what msgspec accepts, with the same values; return whether it does."""
    try:
        fast = read_json(body)
    except Refused:
        return False
    judged = BATCH.judged(body)
    assert list(fast.requests) == list(judged.requests) and fast.format == judged.format
    assert repr(fast.columns) == repr(judged.columns)
    return True


@pytest.mark.long
def test_whatever_msgspec_accepts_pydantic_accepts_with_the_same_values() -> None:
    rng = random.Random(os.environ.get("FUZZ_SEED", "1"))
    accepted = sum(same_by_both(body_of(rng, rng.choice(ODD_NUMBERS))) for _ in range(FUZZ_BODIES))
    assert accepted > FUZZ_BODIES / 10

    @settings(max_examples=FUZZ_BODIES // 8, database=None)
    @given(rng=st.randoms(use_true_random=True), odd=VALUES, damage=st.just(b"") | st.binary(max_size=3))
    def fuzz(rng: random.Random, odd: Any, damage: bytes) -> None:
        same_by_both(body_of(rng, odd, damage))

    fuzz()  # pylint: disable=no-value-for-parameter # hypothesis gives it


@pytest.mark.parametrize("name", ["pyarrow", "Polars", "dictionaries", "large_list", "pyarrow, many record batches"])
def test_a_damaged_stream_is_refused_or_read_as_the_rows_that_it_has(name: str, risks: Risks) -> None:
    whole = WRITERS[name](ROWS[:20])

    @settings(max_examples=300, database=None)
    @given(
        edits=st.lists(st.tuples(st.integers(0, len(whole) - 1), st.binary(min_size=1, max_size=8)), max_size=4),
        end=st.integers(0, len(whole)) | st.just(len(whole)),
    )
    def fuzz(edits: list[tuple[int, bytes]], end: int) -> None:
        body = bytearray(whole)
        for position, content in edits:
            body[position : position + len(content)] = content
        try:
            batch = BATCH.arrow(bytes(body[:end]))
        except Invalid:
            return
        requests = list(batch.requests)
        assert 1 <= len(requests) <= 10_000 and len(requests) == len(risks(batch))

    fuzz()  # pylint: disable=no-value-for-parameter # hypothesis gives it


def test_an_answer_is_read_by_pyarrow() -> None:
    risk = np.array([0.25, 0.5, 1e-9])
    columns = {"id": Texts(b"aabbcc", 2), "risk": risk, "alert": risk > 0.3, "model": {"name": Texts(b"x" * 3, 1)}}
    found = pa.ipc.open_stream(write(columns, 3)).read_all()
    found.validate(full=True)
    assert found.to_pydict() == {
        "id": ["aa", "bb", "cc"],
        "risk": risk.tolist(),
        "alert": [False, True, False],
        "model": [{"name": "x"}] * 3,
    }


def test_rows_of_a_schema_that_has_changed_since_are_read() -> None:
    column = pa.array([["old"], None], pa.list_(pa.string()))
    found = rows_of(stream(GOOD.slice(0, 2).append_column("former", column)))
    assert [row["former"] for row in found] == [["old"], None]
    assert [row["dest"] for row in found] == GOOD.slice(0, 2)["dest"].to_pylist()
