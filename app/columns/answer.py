"""Arrow IPC streams of predictions: one record batch without nulls."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import numpy as np

from app.columns.flatbuffer import scalar, table
from app.columns.stream import BATCH, CONTINUATION, SCHEMA, VERSION

_NUMBERS = {"record": 13, "text": 5, "flag": 6, "number": 3}  # of Arrow's types
_DOUBLE = 2


class Texts(NamedTuple):
    """Texts of one length each, joined: faster to write than a list of strings."""

    joined: bytes
    size: int


def write(columns: dict[str, Any], length: int) -> bytes:
    """Return a stream of columns: `Texts`, float64 or bool arrays, or a dict of columns, which is a struct."""
    nodes: list[int] = []
    buffers: list[bytes] = []
    fields = [_field(name, column, length, nodes, buffers) for name, column in columns.items()]
    places: list[int] = []
    body = bytearray()
    for buffer in buffers:
        places += (len(body), len(buffer))
        body += buffer + bytes(-len(buffer) % 8)
    batch = table(("q", length), ("vector", (2, nodes)), ("vector", (2, places)))
    schema = _message(SCHEMA, table(None, ("vector", fields)), b"")
    return schema + _message(BATCH, batch, bytes(body)) + CONTINUATION + bytes(4)


def _message(kind: int, header: bytes, body: bytes) -> bytes:
    message = table(("h", VERSION), ("B", kind), ("table", header), ("q", len(body)))
    root = struct.pack("<II", 16 + int(scalar(message, "I", 0)), 0) + message
    return CONTINUATION + struct.pack("<I", len(root)) + root + body


def _field(name: str, column: Any, length: int, nodes: list[int], buffers: list[bytes]) -> bytes:
    """Return the field of a column; append its nodes and buffers."""
    nodes += (length, 0)
    buffers.append(b"")
    children: list[bytes] = []
    if isinstance(column, dict):
        kind = "record"
        children = [_field(child, part, length, nodes, buffers) for child, part in column.items()]
    elif isinstance(column, Texts):
        kind = "text"
        ends = np.arange(length + 1, dtype="<i4") * column.size
        buffers += (ends.tobytes(), column.joined)
    elif column.dtype == np.bool_:
        kind = "flag"
        buffers.append(np.packbits(column, bitorder="little").tobytes())
    else:
        kind = "number"
        buffers.append(np.asarray(column, "<f8").tobytes())
    detail = table(("h", _DOUBLE)) if kind == "number" else table()
    parts = ("text", name), ("B", 0), ("B", _NUMBERS[kind]), ("table", detail), None, ("vector", children)
    return table(*parts)
