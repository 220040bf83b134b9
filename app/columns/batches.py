"""Batches in the formats of the service, read without a Pydantic object per row.

What these readers refuse is judged by Pydantic (app/api/batches.py), whose errors are the contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from app.columns import plain, stream
from app.columns.arrays import Doubtful, mismatches, table
from app.columns.fields import Record, Unknown, describe
from app.columns.flatbuffer import Malformed
from app.columns.rows import Reader, Refused
from app.interface import ROWS, Request, columns, from_arrays
from app.model.prediction import Received

MAX_ROWS = 10_000
"""Rows of a batch, in any format."""


def _described() -> tuple[Record | None, Reader | None]:
    try:
        return describe(Request), Reader(Request, ROWS, MAX_ROWS)
    except Unknown:
        return None, None


RECORD, READER = _described()


class Mismatch(Exception):
    """Columns that do not fit the schema; `found` has the place and the message of each."""

    def __init__(self, found: Sequence[tuple[tuple[str, ...], str]]) -> None:
        super().__init__()
        self.found = found


def read_json(body: bytes) -> Received:
    """Return a batch of JSON, by rows or by columns; raise Refused for one that Pydantic has to judge."""
    if READER is None:
        raise Refused
    rows, requests, kind = READER.read(body)
    return Received([columns(rows)], requests, body, kind)


def read_arrow(body: bytes) -> Received:
    """Return a batch of an Arrow stream; raise Refused for one that Pydantic has to judge or that cannot be read."""
    try:
        batch = ArrowBatch(body)
        found, doubtful = batch.read() if 1 <= batch.size <= MAX_ROWS else (None, ())
    except (Malformed, Mismatch) as err:
        raise Refused from err
    if found is None or doubtful:
        raise Refused
    return found


def rows_of(body: bytes) -> list[dict[str, Any]]:
    """Return the rows of an Arrow stream of any schema as objects of JSON; may raise Malformed."""
    _, batches = stream.read(body)
    return [row for arrays in batches if arrays for row in plain.rows(arrays, arrays[0].length)]


class ArrowBatch(Iterable[Any]):
    """The rows of an Arrow stream as requests, made when they are used."""

    def __init__(self, body: bytes) -> None:
        """Read a stream; raise Malformed, and Mismatch for its columns. At most `MAX_ROWS` rows are kept."""
        self.body, self.size = body, 0
        fields, batches = stream.read(body)
        if RECORD is not None and (found := list(mismatches(RECORD, fields))):
            raise Mismatch(found)
        self._parts: list[tuple[tuple[stream.Array, ...], int]] = []
        for arrays in batches:
            length = arrays[0].length if arrays else 0
            self.size += length
            if length and self.size <= MAX_ROWS:
                self._parts.append((arrays, length))

    def __iter__(self) -> Iterator[Any]:
        return map(Request.model_validate, self.rows)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as objects of JSON; may raise Malformed."""
        return [row for part in self._parts for row in plain.rows(*part)]

    def read(self) -> tuple[Received, Sequence[int]]:
        """Return the batch, and the positions of the rows that the request's own validators have to judge.

        Raises Malformed, and Refused for a batch whose rows Pydantic has to judge all.
        """
        if RECORD is None or READER is None:
            raise Refused
        try:
            tables = [table(RECORD, *part) for part in self._parts]
        except Doubtful as err:
            raise Refused from err
        if from_arrays is None:
            return Received([columns(READER.convert(self.rows))], self, self.body, "arrow"), ()
        made, flags = zip(*map(from_arrays, tables), strict=True)
        return Received(list(made), self, self.body, "arrow"), np.flatnonzero(np.concatenate(flags)).tolist()
