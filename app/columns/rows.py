"""JSON batches, read by msgspec with types that are derived from the request schema.

msgspec validates while it parses. What it refuses is parsed again by Pydantic, whose errors are the contract.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel

from app.columns.fields import REQUIRED, Field, Record, describe

COLUMNS = "columns"
"""The key of a batch by columns."""
MAX_OBJECTS = 110_000
"""JSON objects of a body that msgspec reads, so that its memory is bounded: 10,000 rows with ten parts each."""
_FIRST_KEY = re.compile(rb'\s*\{\s*"([^"]*)"')
_SCALARS: dict[str, Any] = {"text": str, "flag": bool, "integer": int, "number": float}
_BEYOND_MICROSECONDS = re.compile(rb":\d\d\.\d{7}")
"""Digits of a time that Pydantic truncates and msgspec rounds."""


class Refused(ValueError):
    """A body that is left to Pydantic."""


class Requests(Iterable[Any]):
    """Rows that msgspec has read, converted to the request schema where the journal has to serialise them."""

    def __init__(self, record: Record, rows: Sequence[Any]) -> None:
        self._record, self._rows = record, rows

    def __iter__(self) -> Iterator[Any]:
        return (construct(self._record, row) for row in self._rows)


def construct(record: Record, row: Any) -> BaseModel:
    """Return a row, an object with the attributes of a record, as an instance of its model."""
    return record.model.model_construct(
        **{name: _value(field, getattr(row, name)) for name, field in record.fields.items()}
    )


def _value(field: Field | Record, value: Any) -> Any:
    if isinstance(field, Record):
        return construct(field, value)
    if value is None or field.item is None:
        return value
    return [_value(field.item, item) for item in value] if field.kind == "list" else _value(field.item, value)


class Reader:
    """Reads batches as a list of rows under one key, or as one list of values per field."""

    def __init__(self, schema: type[BaseModel], key: str, most: int) -> None:
        """Derive the types; raises Unknown if the schema has what msgspec cannot express. `most` limits the rows."""
        self._record = describe(schema)
        self._struct = _struct(self._record)
        self._list: Any = list[self._struct]  # type: ignore[name-defined]
        size = msgspec.Meta(min_length=1, max_length=most)
        self._key = key
        batch = msgspec.defstruct("Batch", [(key, Annotated[self._list, size])], forbid_unknown_fields=True)
        columns = [
            (name, Annotated[list[_type(field)], size], *_default(field, None))  # type: ignore[misc]
            for name, field in self._record.fields.items()
        ]
        self._rows = msgspec.json.Decoder(batch)
        fields = msgspec.defstruct("Columns", columns, forbid_unknown_fields=True)
        self._columns = msgspec.json.Decoder(
            msgspec.defstruct("ColumnarBatch", [(COLUMNS, fields)], forbid_unknown_fields=True)
        )

    def read(self, body: bytes) -> tuple[Sequence[Any], Requests, Literal["rows", "columns"]]:
        """Return the rows of a body, as objects with the schema's attributes and as requests; may raise Refused."""
        if b"\\" in body or body.count(b"{") > MAX_OBJECTS or _BEYOND_MICROSECONDS.search(body):
            raise Refused
        by_column = _first_key(body) == COLUMNS
        try:
            rows = self._transposed(body) if by_column else getattr(self._rows.decode(body), self._key)
            if not rows:
                raise Refused
        except (
            Exception
        ) as err:  # pylint: disable=broad-exception-caught # of the problem's checks: Pydantic repeats them
            raise Refused from err
        return rows, Requests(self._record, rows), "columns" if by_column else "rows"

    def convert(self, rows: list[dict[str, Any]]) -> Sequence[Any]:
        """Return rows, without NaN and infinities, as objects with the schema's attributes; may raise Refused."""
        try:
            return list(msgspec.convert(rows, self._list))
        except Exception as err:  # pylint: disable=broad-exception-caught # as above
            raise Refused from err

    def _transposed(self, body: bytes) -> list[Any]:
        columns = getattr(self._columns.decode(body), COLUMNS)
        given = {name: values for name in self._record.fields if (values := getattr(columns, name)) is not None}
        return [self._struct(**dict(zip(given, row, strict=True))) for row in zip(*given.values(), strict=True)]


def _first_key(body: bytes) -> str:
    found = _FIRST_KEY.match(body)
    return found[1].decode(errors="replace") if found else ""


def _struct(record: Record) -> type[msgspec.Struct]:
    fields = [(name, _type(field), *_default(field, field.default)) for name, field in record.fields.items()]
    checked = {"__post_init__": _post_init(record)} if record.checks or record.whole else {}
    return msgspec.defstruct(
        record.model.__name__,
        fields,
        frozen=True,
        forbid_unknown_fields=True,
        gc=False,
        kw_only=True,
        namespace=checked,
    )


def _default(field: Field, default: Any) -> tuple[Any, ...]:
    return () if field.default is REQUIRED else (default,)


def _post_init(record: Record) -> Any:
    """Return a method that applies the schema's own validators; one that changes a value is refused."""

    def post_init(row: Any) -> None:
        for name, checks in record.checks.items():
            value = getattr(row, name)
            if any(check(value) is not value for check in checks):
                raise Refused
        if any(check(row) is not row for check in record.whole):
            raise Refused

    return post_init


def _type(field: Field | Record) -> Any:
    """Return msgspec's type of a field."""
    if isinstance(field, Record):
        return _struct(field)
    if field.kind == "time":
        found: Any = Annotated[datetime, msgspec.Meta(tz=False)]
    elif field.choices:
        found = Literal[field.choices]
    elif field.item is not None:
        found = list[_type(field.item)] if field.kind == "list" else _type(field.item)  # type: ignore[misc]
    else:
        found = _SCALARS[field.kind]
    if field.bounds:
        found = Annotated[found, msgspec.Meta(**field.bounds)]
    return found | None if field.nullable else found
