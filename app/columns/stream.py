"""Arrow IPC streams: the columns of requests; app/columns/answer.py writes those of answers.

A reader of its own, over NumPy: nanoarrow 0.9 crashes on damaged streams and cannot read `string_view`, which Polars
writes, and arro3-core has no IPC. The format: https://arrow.apache.org/docs/format/Columnar.html, version 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from app.columns.flatbuffer import Malformed, Table, scalar

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
MAX_MESSAGES, MAX_FIELDS, MAX_DEPTH = 1000, 1000, 8
CONTINUATION = b"\xff\xff\xff\xff"
SCHEMA, _DICTIONARY, BATCH = 1, 2, 3
VERSION = 4  # MetadataVersion.V5
_TYPES = dict(
    enumerate(
        "none null int float binary text flag decimal date clock timestamp interval list record union fixed_binary "
        "fixed_list map duration large_binary large_text large_list run_end_encoded binary_view text_view list_view "
        "large_list_view".split()
    )
)
_READ = set(
    "null int float text flag decimal date timestamp list record fixed_list large_text large_list text_view".split()
)
_FLOATS = ("<f2", "<f4", "<f8")
_UNITS = ("s", "ms", "us", "ns")


class Type(NamedTuple):
    """The type of a column: Arrow's, and the NumPy format of its values, offsets or views."""

    name: str
    format: str = ""
    detail: int = 0
    """Scale of a decimal, size of a fixed list, 1 for a timestamp with a time zone."""


class Field(NamedTuple):
    """A field of an Arrow schema."""

    name: str
    type: Type
    children: tuple[Field, ...] = ()
    dictionary: int | None = None
    """Id of the dictionary that has the values; then `keys` is the type of the column itself."""
    keys: Type | None = None


class Array(NamedTuple):
    """A part of a column: `length` values from `start` of its buffers."""

    field: Field
    length: int
    nulls: int
    buffers: tuple[memoryview, ...]
    children: tuple[Array, ...] = ()
    dictionary: Array | None = None
    start: int = 0

    def slice(self, start: int, stop: int) -> Array:
        """Return a part of this part."""
        if not 0 <= start <= stop <= self.length:
            raise self.malformed("its offsets are wrong")
        # pylint: disable-next=no-member # pylint takes the class for no NamedTuple, as it has a field of its own type
        return self._replace(start=self.start + start, length=stop - start)

    def malformed(self, what: str) -> Malformed:
        """Return an error that names the column."""
        return Malformed(f"column {self.field.name[:100]!r}: {what}")

    def numpy(self, buffer: int, kind: str, more: int = 0) -> np.ndarray[Any, Any]:
        """Return the values of a buffer, and some after them."""
        size = np.dtype(kind).itemsize
        count, data = self.length + more, self.buffers[buffer]
        if (self.start + count) * size > len(data):
            if not self.length:  # offsets of nothing may be omitted
                return np.zeros(count, kind)
            raise self.malformed("a buffer is too short")
        return np.frombuffer(data, kind, count, self.start * size)

    def bits(self, buffer: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return a bitmap."""
        data = np.frombuffer(self.buffers[buffer], np.uint8)
        end = self.start + self.length
        if end > 8 * len(data):
            raise self.malformed("a buffer is too short")
        first = self.start // 8
        found = np.unpackbits(data[first : (end + 7) // 8], bitorder="little")
        return found[self.start - 8 * first : end - 8 * first].astype(np.bool_)

    def valid(self) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """Return which values are not null, None if all are."""
        if self.field.type.name == "null":
            return np.zeros(self.length, np.bool_)
        return self.bits(0) if self.nulls else None

    def values(self) -> Array:
        """Return the items of a list, from the first to the last one that its offsets name."""
        offsets = self.offsets()
        return self.children[0].slice(int(offsets[0]), int(offsets[-1]))

    def offsets(self) -> np.ndarray[Any, Any]:
        """Return the offsets of lists or texts, one more than values, checked."""
        if self.field.type.name == "fixed_list":
            size = self.field.type.detail
            return np.arange(self.start, self.start + self.length + 1, dtype=np.int64) * size
        found = self.numpy(1, self.field.type.format, 1).astype(np.int64)
        if found[0] < 0 or (found[1:] < found[:-1]).any():
            raise self.malformed("its offsets are wrong")
        return found


def read(body: bytes) -> tuple[tuple[Field, ...], Iterator[tuple[Array, ...]]]:
    """Return the fields of a stream, and an iterator over the columns of its record batches.

    Raises `Malformed`, also while iterating. Nothing is copied; no array has more values than the body has bytes.
    """
    messages = _messages(body)
    kind, header, _ = next(messages, (0, None, b""))
    if kind != SCHEMA or header is None:
        raise Malformed("it does not start with a schema")
    if header.number(0, "h"):
        raise Malformed("it is big-endian")
    budget = [MAX_FIELDS]
    fields = tuple(_field(item, budget, 1) for item in header.tables(1))
    return fields, _batches(messages, fields, len(body))


def _messages(body: bytes) -> Iterator[tuple[int, Table, memoryview]]:
    """Yield the kind, the header and the body of each message."""
    at, view = 0, memoryview(body)
    for _ in range(MAX_MESSAGES):
        if at == len(body):
            return
        if body[at : at + 4] != CONTINUATION:
            raise Malformed(f"no message starts at byte {at}")
        size = int(scalar(body, "i", at + 4)) if at + 8 <= len(body) else -1
        if size == 0:
            return
        start = at + 8 + size
        if size < 0 or start > len(body):
            raise Malformed(f"it is truncated: the message at byte {at} is longer than the body of {len(body)} bytes")
        message = Table.root(body[at + 8 : start])
        length, header = message.number(3, "q"), message.table(2)
        if message.number(0, "h") != VERSION or header is None or length < 0:
            raise Malformed("it is not of Arrow's format version 5")
        if start + length > len(body):
            raise Malformed(f"it is truncated: the message at byte {at} is longer than the body of {len(body)} bytes")
        yield message.number(1, "B"), header, view[start : start + length]
        at = start + length
    raise Malformed(f"it has more than {MAX_MESSAGES} messages; write fewer, larger record batches")


def _field(item: Table, budget: list[int], depth: int) -> Field:
    budget[0] -= 1
    if budget[0] < 0 or depth > MAX_DEPTH:
        raise Malformed(f"its schema has more than {MAX_FIELDS} fields or {MAX_DEPTH} levels")
    children = tuple(_field(child, budget, depth + 1) for child in item.tables(5))
    found = Field(item.text(0), _type(item.number(2, "B"), item.table(3)), children)
    encoding = item.table(4)
    if encoding is None:
        return found
    index = encoding.table(1)
    keys = _type(2, index) if index else Type("int", "<i4")
    if keys.name != "int":
        raise Malformed(f"column {found.name[:100]!r}: the indices of its dictionary are not integers")
    return found._replace(dictionary=encoding.number(0, "q"), keys=keys)


def _type(number: int, detail: Table | None) -> Type:
    name = _TYPES.get(number, "unknown")
    if name == "null" or detail is None:
        return Type("null" if name == "null" else "unknown")
    if name in _DETAILED:
        return _DETAILED[name](detail) or Type("unknown")
    return Type(name, "<i8" if name.startswith("large") else "<i4")


def _int(detail: Table) -> Type | None:
    width = {8: 1, 16: 2, 32: 4, 64: 8}.get(detail.number(0, "i"))
    return Type("int", f"<{'i' if detail.number(1, 'B') else 'u'}{width}") if width else None


def _float(detail: Table) -> Type | None:
    precision = detail.number(0, "h")
    return Type("float", _FLOATS[precision]) if 0 <= precision < len(_FLOATS) else None


def _timestamp(detail: Table) -> Type | None:
    unit = detail.number(0, "h")
    return Type("timestamp", f"<M8[{_UNITS[unit]}]", int(bool(detail.text(1)))) if 0 <= unit < len(_UNITS) else None


def _decimal(detail: Table) -> Type | None:
    scale, bits = detail.number(1, "i"), detail.number(2, "i", 128)
    return Type("decimal", "<i8", scale) if bits == 128 and 0 <= scale <= 38 else None


_DETAILED: dict[str, Callable[[Table], Type | None]] = {
    "int": _int,
    "float": _float,
    "timestamp": _timestamp,
    "decimal": _decimal,
    "date": lambda detail: Type("date", "<M8[ms]" if detail.number(0, "h", 1) else "<i4"),
    "fixed_list": lambda detail: Type("fixed_list", detail=max(0, detail.number(0, "i"))),
}


def unsupported(field: Field) -> str:
    """Return the name of the first type in a field that is not read, empty if all are."""
    if field.dictionary is not None and field.type.name not in ("text", "large_text", "text_view"):
        return f"dictionary of {field.type.name}"
    if field.type.name not in _READ or len(field.children) != 1 and field.type.name.endswith("list"):
        return field.type.name
    return next((found for child in field.children if (found := unsupported(child))), "")


def _batches(
    messages: Iterator[tuple[int, Table, memoryview]], fields: tuple[Field, ...], most: int
) -> Iterator[tuple[Array, ...]]:
    dictionaries: dict[int, Array] = {}
    encoded = {field.dictionary: field for field in _walk(fields) if field.dictionary is not None}
    for kind, header, body in messages:
        if kind == BATCH:
            yield _Arrays(header, body, dictionaries, most).read(fields)
        elif kind == _DICTIONARY and header.number(0, "q") in encoded and not header.number(2, "B"):
            name, data = header.number(0, "q"), header.table(1)
            if data is None:
                raise Malformed("a dictionary has no values")
            field = encoded[name]._replace(dictionary=None, keys=None)
            dictionaries[name] = _Arrays(data, body, dictionaries, most).read((field,))[0]
        else:
            raise Malformed("it has a message that is neither a record batch nor a whole dictionary of its schema")


def _walk(fields: Sequence[Field]) -> Iterator[Field]:
    for field in fields:
        yield field
        yield from _walk(field.children)


class _Arrays:
    """The arrays of one record batch, from its nodes and buffers."""

    def __init__(self, header: Table, body: memoryview, dictionaries: dict[int, Array], most: int) -> None:
        if header.table(3) is not None:
            raise Malformed("its buffers are compressed (LZ4 or ZSTD); write it without compression")
        self._length, self._body, self._dictionaries, self._most = header.number(0, "q"), body, dictionaries, most
        self._nodes, self._buffers = iter(header.numbers(1, 2)), iter(header.numbers(2, 2))
        self._variadic = iter(header.numbers(4))

    def read(self, fields: tuple[Field, ...]) -> tuple[Array, ...]:
        """Return the columns of these fields."""
        arrays = tuple(self._array(field) for field in fields)
        if any(array.length != self._length for array in arrays):
            raise Malformed("the columns of a record batch differ in length")
        return arrays

    def _array(self, field: Field) -> Array:
        length, nulls = _next(self._nodes)
        if not 0 <= nulls <= length <= self._most:
            raise Malformed(f"column {field.name[:100]!r}: its length is wrong")
        own = field.keys or field.type
        count = {"null": 0, "record": 1, "fixed_list": 1, "text": 3, "large_text": 3, "text_view": 2}.get(own.name, 2)
        buffers = [self._buffer() for _ in range(count)]
        if own.name == "text_view":
            (more,) = _next(self._variadic)
            if not 0 <= more <= self._most:
                raise Malformed(f"column {field.name[:100]!r}: its number of buffers is wrong")
            buffers += [self._buffer() for _ in range(more)]
        if field.dictionary is not None:
            words = self._dictionaries.get(field.dictionary)
            if words is None:
                raise Malformed(f"column {field.name[:100]!r}: its dictionary is missing")
            return Array(field._replace(type=own), length, nulls, tuple(buffers), (), words)
        children = tuple(self._array(child) for child in field.children)
        if own.name == "record" and any(child.length < length for child in children):
            raise Malformed(f"column {field.name[:100]!r}: its fields are too short")
        return Array(field, length, nulls, tuple(buffers), children)

    def _buffer(self) -> memoryview:
        offset, length = _next(self._buffers)
        if not (0 <= offset and 0 <= length and offset + length <= len(self._body)):
            raise Malformed("a buffer is outside of its message")
        return self._body[offset : offset + length]


def _next(values: Iterator[tuple[int, ...]]) -> tuple[int, ...]:
    found = next(values, None)
    if found is None:
        raise Malformed("a record batch lacks arrays or buffers of its schema")
    return found
