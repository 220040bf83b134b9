"""A validated batch, in any format, and what the journal keeps of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from app.interface import ROWS_NOUN, Request

Format = Literal["rows", "arrow"]
"""The form of a batch: JSON, or an Arrow stream."""
KEPT = 4096
"""Bytes per request up to which the journal stores the body as received: no encoding, and a bound on the queue."""
_ROWS = f'"{ROWS_NOUN}"'.encode()


class Received(NamedTuple):
    """A validated batch."""

    columns: Sequence[Any]
    """The problem's columns; of several parts, one after another."""
    requests: Iterable[Request]
    body: bytes = b""
    """As received; empty if the journal has to serialise the requests."""
    format: Format = "rows"


def body_to_keep(batch: Received, rows: int) -> bytes:
    """Return what the journal stores of a batch as received; empty if it has to serialise the requests."""
    body = batch.body
    if len(body) > KEPT * rows:
        return b""
    if batch.format == "arrow":
        return body
    # The objects between the brackets, unless the key may be given more than once.
    if b"\\" in body or body.count(_ROWS) != 1:
        return b""
    return body[body.index(b"[") + 1 : body.rindex(b"]")].strip()
