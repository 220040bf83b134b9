"""Bodies of batches: JSON by rows or by columns, read by Pydantic, and Arrow streams.

A body is read as a whole. Only if that fails, Pydantic validates it row by row, so that its errors are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fastapi import HTTPException
from pydantic import TypeAdapter
from pydantic_core import from_json
from starlette.datastructures import Headers

from app.api.edge.bodies import Body, Invalid, Location, check_type, invalid
from app.api.schemas import AnyColumns, Batch
from app.batches.arrays import NeedsFullValidation
from app.batches.read import COLUMNS_KEY, MAX_ROWS, ArrowBatch, Mismatch
from app.batches.received import Received
from app.batches.stream import DAMAGED, MEDIA_TYPE
from app.interface import ROWS_NOUN, Request, arrays_of_requests

ORDINARY_BYTES = 2 << 20
"""Size in bytes above which an invalid body must not have more values than its rows need."""
MAX_OBJECTS, MAX_VALUES = 110_000, 1_000_000
"""JSON objects and values of a body that is read as a whole: 10,000 rows with ten parts each."""
_BY_COLUMN = re.compile(rb'\s*\{\s*"%b"' % COLUMNS_KEY.encode())
_requests: TypeAdapter[list[Any]] = TypeAdapter(list[Request])


class BatchBody(Body):
    """The body of a batch, in any format."""

    def __init__(self) -> None:
        super().__init__(Batch, ROWS_NOUN, Request, MAX_ROWS)

    def parser(self, headers: Headers) -> Callable[[bytes], Any]:
        """Return the function that reads a body with these headers; raise 415 if there is none."""
        return self.json if check_type(headers.get("content-type", ""), MEDIA_TYPE) else self.arrow

    def json(self, body: bytes) -> Received:
        """Read JSON; raise as `read` does."""
        try:
            return self.whole(body)
        except ValueError:
            return self.judged(body)

    def whole(self, body: bytes) -> Received:
        """Read JSON that is valid, of bounded size; otherwise raise ValueError."""
        objects, commas = body.count(b"{"), body.count(b",")
        if objects > MAX_OBJECTS or commas > MAX_VALUES:
            raise ValueError("the body has too many values")
        if not _BY_COLUMN.match(body):
            if commas > len(self._known) * objects:
                raise ValueError("the body has more keys than the schema")
            requests = self.validate_json(body).rows
            return Received([arrays_of_requests(requests)], requests, body)
        value = from_json(body)
        AnyColumns.model_validate(value)
        lists = value[COLUMNS_KEY]
        rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        if not rows:
            raise ValueError("the body has no columns")
        requests = _requests.validate_python(rows)
        return Received([arrays_of_requests(requests)], requests)

    def judged(self, body: bytes) -> Received:
        """Read JSON row by row."""
        if len(body) > ORDINARY_BYTES and not self.ordinary(body):
            text = f"A body of more than {ORDINARY_BYTES} bytes must not have more values than its rows need."
            raise HTTPException(413, text)
        found = self.parse(body)
        requests = found.rows if isinstance(found, Batch) else found
        return Received([arrays_of_requests(requests)], requests)  # without the body, which may be UTF-16

    def validated(self, value: Any) -> Any:
        """Return a batch, or the requests of one by columns."""
        if isinstance(value, dict) and COLUMNS_KEY in value and ROWS_NOUN not in value:
            return self._by_column(value)
        return super().validated(value)

    def _by_column(self, value: dict[str, Any]) -> list[Any]:
        error = Invalid()
        self.checked(AnyColumns, value, error, ())
        if not error.errors:
            lists: dict[str, list[Any]] = value[COLUMNS_KEY]
            first = next(iter(lists), None)
            if first is None:
                raise invalid(COLUMNS_KEY, "At least one column is required")
            for name, values in lists.items():
                if len(values) != len(lists[first]):
                    text = f"List should have {len(lists[first])} items, as {first} has, not {len(values)}"
                    error.add([{"loc": (COLUMNS_KEY, name), "msg": text}], ())
        if error.errors:
            raise error
        return self._rows_of([dict(zip(lists, row)) for row in zip(*lists.values())])

    def _rows_of(self, rows: Sequence[Any], only: Sequence[int] | None = None) -> list[Any]:
        """Return rows of columns as requests, or some of them; errors are named by column and row."""
        error = Invalid()
        places = range(len(rows)) if only is None else only
        found = [self.checked(Request, rows[i], error, partial(_place, i)) for i in places]
        if error.errors:
            raise error
        return found

    def arrow(self, body: bytes) -> Received:
        """Read an Arrow stream; raise `Invalid` for one that is damaged, of another schema, or violates it."""
        try:
            return self._arrow(body)
        except DAMAGED as err:
            reason = str(err).partition("\n")[0] or "it is damaged"
            file = "; it is an Arrow file, write a stream" if body.startswith(b"ARROW1") else ""
            raise invalid("body", f"not a readable Arrow IPC stream: {reason}{file}") from err
        except Mismatch as err:
            error = Invalid()
            error.add([{"loc": (COLUMNS_KEY, *place), "msg": text} for place, text in err.found], ())
            raise error from err

    def _arrow(self, body: bytes) -> Received:
        batch = ArrowBatch(body)
        if not 1 <= batch.size <= MAX_ROWS:
            allowed = f"at most {MAX_ROWS} items" if batch.size else "at least 1 item"
            raise invalid(COLUMNS_KEY, f"List should have {allowed} after validation, not {batch.size}")
        try:
            found, doubtful = batch.read()
        except NeedsFullValidation:
            requests = self._rows_of(batch.rows)
            return Received([arrays_of_requests(requests)], requests, body, "arrow")
        if doubtful:
            self._rows_of(batch.rows, doubtful)
        return found


def _place(row: int, location: Location) -> Location:
    return (COLUMNS_KEY, *location[:1], row, *location[1:])


BATCH = BatchBody()
