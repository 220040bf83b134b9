"""Batches of requests in every format, as real programs write them."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
import polars
import pyarrow as pa

from app.interface import EXAMPLE

HOUR = EXAMPLE["weather"][0]
TIMES = ("scheduled_departure", "scheduled_arrival")
Rows = list[dict[str, Any]]


def flights(count: int, seed: int = 0) -> Rows:
    """Return valid requests with none to seven hours of weather, gaps, and airlines and airports not seen before."""
    rng = random.Random(seed)
    found: Rows = []
    for _ in range(count):
        departure = datetime(2013, 1, 1) + timedelta(minutes=rng.randrange(60 * 24 * 300))
        arrival = departure + timedelta(minutes=rng.randrange(60, 400), seconds=rng.choice([0, 30]))
        hours = [
            {name: rng.choice([None, float(value), value * 0.875]) for name, value in HOUR.items()}
            for _ in range(rng.randrange(8))
        ]
        row = {
            "carrier": rng.choice(["UA", "AA", "B6", "ZZ"]),
            "origin": rng.choice(["EWR", "JFK", "LGA"]),
            "dest": rng.choice(["SFO", "PHX", "SJU", "XXX"]),
            "scheduled_departure": departure.isoformat(),
            "scheduled_arrival": arrival.isoformat(),
            "flight_number": rng.choice([None, 1.0, 9999.0]),
            "weather": hours or None,
        }
        found.append(row)
    return found


def by_column(rows: Rows) -> dict[str, list[Any]]:
    """Return rows as lists."""
    return {name: [row.get(name) for row in rows] for name in rows[0]}


def as_json(rows: Any) -> bytes:
    """Return a batch of JSON by rows."""
    return json.dumps({"flights": rows}).encode()


def as_columns(rows: Rows) -> bytes:
    """Return a batch of JSON by columns."""
    return json.dumps({"columns": by_column(rows)}).encode()


def table(rows: Rows) -> pa.Table:
    """Return rows as a table of pyarrow, with times."""
    local = {name: (datetime.fromisoformat, TIMES) for name in TIMES}
    return pa.Table.from_pylist([{k: local[k][0](v) if k in TIMES else v for k, v in row.items()} for row in rows])


def stream(found: pa.Table, rows: int | None = None, **options: Any) -> bytes:
    """Return a table as an Arrow stream, in record batches of some rows."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, found.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(found, rows)
    return sink.getvalue()


def replaced(found: pa.Table, name: str, values: Any) -> pa.Table:
    """Return a table with another column of this name."""
    return found.set_column(found.schema.get_field_index(name), name, values)


def cast(kind: Any, *names: str) -> Callable[[Rows], bytes]:
    """Return a writer whose columns of these names have another type."""

    def write(rows: Rows) -> bytes:
        found = table(rows)
        for name in names:
            found = replaced(found, name, found[name].cast(kind))
        return stream(found)

    return write


def pandas(rows: Rows) -> bytes:
    """Write a frame of pandas."""
    frame = pd.DataFrame(rows)
    for name in TIMES:
        frame[name] = pd.to_datetime(frame[name], format="ISO8601")
    return stream(pa.Table.from_pandas(frame, preserve_index=False))


def categories(rows: Rows) -> bytes:
    """Write a frame of pandas with categories."""
    frame = table(rows).to_pandas()
    frame[["carrier", "origin"]] = frame[["carrier", "origin"]].astype("category")
    return stream(pa.Table.from_pandas(frame, preserve_index=False))


def polars_stream(rows: Rows, **kinds: Any) -> bytes:
    """Write a frame of Polars."""
    frame = polars.DataFrame(rows, infer_schema_length=None).with_columns(
        polars.col(name).str.to_datetime() for name in TIMES
    )
    sink = io.BytesIO()
    frame.with_columns(polars.col(name).cast(kind) for name, kind in kinds.items()).write_ipc_stream(sink)
    return sink.getvalue()


WRITERS: dict[str, Callable[[Rows], bytes]] = {
    "pyarrow": lambda rows: stream(table(rows)),
    "pyarrow, many record batches": lambda rows: stream(table(rows), 7),
    "pandas": pandas,
    "pandas, categories": categories,
    "Polars": polars_stream,
    "Polars, categories": lambda rows: polars_stream(
        rows, carrier=polars.Categorical, dest=polars.Enum(["SFO", "PHX", "SJU", "XXX"])
    ),
    "decimals": cast(pa.decimal128(9, 2), "flight_number"),
    "dictionaries": cast(pa.dictionary(pa.int8(), pa.large_string()), "carrier", "origin", "dest"),
    "large_string": cast(pa.large_string(), "carrier", "origin", "dest"),
    "string_view": cast(pa.string_view(), "carrier", "origin", "dest"),
    "seconds": cast(pa.timestamp("s"), *TIMES),
    "nanoseconds": cast(pa.timestamp("ns"), *TIMES),
    "times as text": cast(pa.string(), *TIMES),
    "32 bits": cast(pa.float32(), "flight_number"),
    "large_list": cast(pa.large_list(pa.struct({name: pa.float64() for name in HOUR})), "weather"),
    "ZSTD": lambda rows: stream(table(rows), compression="zstd"),
    "LZ4": lambda rows: stream(table(rows), 7, compression="lz4"),
    "a slice": lambda rows: stream(table([rows[0], *rows, rows[0]]).slice(1, len(rows))),
}
