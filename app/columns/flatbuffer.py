"""Flatbuffers, the encoding of Arrow's metadata: reading any, writing the few that an answer needs.

Every access is checked against the buffer's length: an untrusted buffer raises `Malformed`, and nothing else.
"""

from __future__ import annotations

import struct
from typing import Any

_SIZES = {"b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "q": 8}
_FORMATS = {kind: struct.Struct(f"<{kind}") for kind in _SIZES}


class Malformed(ValueError):
    """Bytes that are no Arrow stream of the supported kind; the text is for the client."""


def scalar(buffer: bytes, kind: str, at: int) -> Any:
    """Return the number of a `struct` format at a position."""
    if not 0 <= at <= len(buffer) - _SIZES[kind]:
        raise Malformed("its metadata points outside of it")
    return _FORMATS[kind].unpack_from(buffer, at)[0]


class Table:
    """A table in a flatbuffer; its fields are addressed by their numbers in Arrow's schema."""

    def __init__(self, buffer: bytes, at: int) -> None:
        self._buffer, self._at = buffer, at
        self._slots = at - scalar(buffer, "i", at)
        self._size = scalar(buffer, "H", self._slots)

    @classmethod
    def root(cls, buffer: bytes) -> Table:
        """Return the root of a flatbuffer."""
        return cls(buffer, scalar(buffer, "I", 0))

    def _position(self, field: int) -> int:
        """Return the position of a field, 0 if it has its default."""
        slot = 4 + 2 * field
        offset = scalar(self._buffer, "H", self._slots + slot) if slot < self._size else 0
        return self._at + offset if offset else 0

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """Return a number."""
        position = self._position(field)
        return int(scalar(self._buffer, kind, position)) if position else default

    def _target(self, field: int) -> int:
        position = self._position(field)
        return position + int(scalar(self._buffer, "I", position)) if position else 0

    def table(self, field: int) -> Table | None:
        """Return a table, None if it is absent."""
        target = self._target(field)
        return Table(self._buffer, target) if target else None

    def text(self, field: int) -> str:
        """Return a text, empty if it is absent."""
        start, length = self._vector(field, 1)
        return self._buffer[start : start + length].decode(errors="replace")

    def tables(self, field: int) -> list[Table]:
        """Return a vector of tables."""
        start, length = self._vector(field, 4)
        places = range(start, start + 4 * length, 4)
        return [Table(self._buffer, place + scalar(self._buffer, "I", place)) for place in places]

    def numbers(self, field: int, width: int = 1) -> list[tuple[int, ...]]:
        """Return a vector of structs of `width` numbers of 64 bits."""
        start, length = self._vector(field, 8 * width)
        return list(struct.iter_unpack(f"<{width}q", self._buffer[start : start + 8 * width * length]))

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        """Return start and length of a vector whose items have this size."""
        target = self._target(field)
        if not target:
            return 0, 0
        length = int(scalar(self._buffer, "I", target))
        if target + 4 + size * length > len(self._buffer):
            raise Malformed("its metadata points outside of it")
        return target + 4, length


def table(*fields: tuple[str, Any] | None) -> bytes:
    """Return a table, its fields by number: (kind, value) with a `struct` format, or with "table", "vector", "text".

    The value of a table is its bytes; of a vector, a list of tables' bytes or, as (width, numbers), of structs. A table
    starts with the offset to its vtable, which this function puts in front of it, 8 bytes aligned.
    """
    slots, inline, parts = [], bytearray(4), []
    for field in fields:
        if field is None:
            slots.append(0)
            continue
        kind, value = field
        size = _SIZES.get(kind, 4)
        inline += bytes(-len(inline) % size)
        slots.append(len(inline))
        if kind in _SIZES:
            inline += _FORMATS[kind].pack(value)
        else:
            parts.append((len(inline), _part(kind, value)))
            inline += bytes(4)
    inline += bytes(-len(inline) % 8)
    vtable = struct.pack(f"<HH{len(slots)}H", 4 + 2 * len(slots), len(inline), *slots)
    vtable += bytes(-len(vtable) % 8)
    inline[:4] = struct.pack("<i", len(vtable))
    tail = bytearray()
    for place, (entry, content) in parts:
        inline[place : place + 4] = struct.pack("<I", len(inline) + len(tail) + entry - place)
        tail += content + bytes(-len(content) % 8)
    return struct.pack("<I", len(vtable)) + bytes(4) + vtable + bytes(inline) + bytes(tail)


def _part(kind: str, value: Any) -> tuple[int, bytes]:
    """Return the position of a part's entry in its bytes, which are 8 bytes aligned, and the bytes."""
    if kind == "table":
        return _entry(value), value
    if kind == "text":
        content = value.encode()
        return 0, struct.pack("<I", len(content)) + content + b"\0"
    if isinstance(value, tuple):  # structs: the items, not the length, are aligned
        width, numbers = value
        return 4, bytes(4) + struct.pack(f"<I{len(numbers)}q", len(numbers) // width, *numbers)
    head, content = bytearray(struct.pack("<I", len(value))), bytearray()
    start = 4 + 4 * len(value) + -(4 + 4 * len(value)) % 8
    for i, item in enumerate(value):
        head += struct.pack("<I", start + len(content) + _entry(item) - (4 + 4 * i))
        content += item + bytes(-len(item) % 8)
    return 0, bytes(head) + bytes(start - len(head)) + bytes(content)


def _entry(content: bytes) -> int:
    """Return the position of a table in its bytes, after its vtable; `table` puts the vtable's size in front."""
    return 8 + int(struct.unpack_from("<I", content)[0])
