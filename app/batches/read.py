"""Batches of Arrow streams, read without a Pydantic object per row.

Pydantic validates again what these readers reject (app/api/routes/batch_body.py): its errors are the contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from app.batches import arrays, stream
from app.batches.arrays import NeedsFullValidation
from app.batches.fields import Record, Unknown, describe
from app.batches.received import Received
from app.interface import Request, from_arrays

COLUMNS_KEY = "columns"
"""The key of a batch by columns, and the first part of the names of its errors."""
MAX_ROWS = 10_000
"""Rows of a batch, in any format."""


def _described() -> Record | None:
    try:
        return describe(Request)
    except Unknown:
        return None


RECORD = _described()


class Mismatch(Exception):
    """Columns that do not fit the schema; `found` has the place and the message of each."""

    def __init__(self, found: Sequence[tuple[tuple[str, ...], str]]) -> None:
        super().__init__()
        self.found = found


def rows_of(body: bytes) -> list[dict[str, Any]]:
    """Return the rows of an Arrow stream of any schema as objects of JSON; may raise one of `stream.DAMAGED`."""
    return [row for part in stream.read(body) for row in _rows(part)]


def _rows(part: pa.RecordBatch) -> list[dict[str, Any]]:
    return arrays.rows(part.schema.names, part.columns, part.num_rows)


class ArrowBatch(Iterable[Any]):
    """The rows of an Arrow stream as requests, made when they are used."""

    def __init__(self, body: bytes) -> None:
        """Read a stream; raise one of `stream.DAMAGED`, and Mismatch. At most `MAX_ROWS` rows are kept."""
        self.body, self.size = body, 0
        self._parts: list[pa.RecordBatch] = []
        reader = stream.read(body)
        found = list(arrays.mismatches(RECORD, list(reader.schema))) if RECORD else []
        if found:
            raise Mismatch(found)
        for part in reader:
            self.size += part.num_rows
            if part.num_rows and self.size <= MAX_ROWS:
                stream.validate(part)
                self._parts.append(part)

    def __iter__(self) -> Iterator[Any]:
        return map(Request.model_validate, self.rows)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Return the rows as objects of JSON."""
        return [row for part in self._parts for row in _rows(part)]

    def read(self) -> tuple[Received, Sequence[int]]:
        """Return the batch, and the positions of the rows that the validators of the request have to check.

        Raises NeedsFullValidation if Pydantic has to validate all rows.
        """
        if RECORD is None or from_arrays is None:
            raise NeedsFullValidation
        tables = [arrays.table(RECORD, part.schema.names, part.columns, part.num_rows) for part in self._parts]
        columns, flags = zip(*map(from_arrays, tables), strict=True)
        return Received(list(columns), self, self.body, "arrow"), np.flatnonzero(np.concatenate(flags)).tolist()
