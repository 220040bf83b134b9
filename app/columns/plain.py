"""Columns of Arrow streams as Python values, those that JSON would give; for texts and for all that Pydantic judges."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from app.columns.stream import Array, unsupported
from app.features import Words

TEXTS, LISTS = {"text", "large_text", "text_view"}, {"list", "large_list", "fixed_list"}
MAX_ITEMS = 100_000
"""Items of a list column, in all rows of a record batch."""
MAX_TEXT_BYTES = 16 << 20
"""Bytes of a column's texts; views may repeat the same bytes in each row."""
_INLINE = 12  # bytes of a text that its view holds itself


def items(array: Array) -> Array:
    """Return the items of lists; raise Malformed if there are too many."""
    found = array.values()
    if found.length > MAX_ITEMS:
        raise array.malformed(f"its lists have more than {MAX_ITEMS} items in all; send fewer rows at once")
    return found


def words(array: Array) -> Words:
    """Return a column of texts, dictionary-encoded or not."""
    valid = array.valid()
    if array.dictionary is not None:
        return _decoded(array, array.dictionary, valid)
    raw, lengths, size = _short(array)
    try:
        if raw is not None and (valid is None or valid.all()):
            padded = np.zeros((array.length, 8), np.uint8)
            padded[:, :size] = raw
            kinds, places = np.unique(padded.view("<u8")[:, 0], return_inverse=True)
            return Words([kind.tobytes()[:size].decode() for kind in kinds.astype("<u8")], places)
        found: list[str | None] = (
            _views(array, lengths, valid) if array.field.type.name == "text_view" else _slices(array)
        )
    except UnicodeDecodeError:
        raise array.malformed("a text is not UTF-8") from None
    if valid is not None:
        found = [text if there else None for text, there in zip(found, valid.tolist(), strict=True)]
    known: dict[str | None, int] = {}
    places = np.array([known.setdefault(text, len(known)) for text in found], np.int64)
    return Words(list(known), places)


def _short(array: Array) -> tuple[Any, Any, int]:
    """Return texts as bytes, shape (n, size), if all have one size of 1 to 8; and the lengths of views, the size."""
    if array.field.type.name == "text_view":
        raw = array.numpy(1, "V16").view(np.uint8).reshape(-1, 16)
        lengths = raw[:, :4].copy().view("<i4")[:, 0]
    else:
        raw, offsets = None, array.offsets()
        lengths = np.diff(offsets)
    size = int(lengths[0]) if array.length else 0
    if not 1 <= size <= 8 or (lengths != size).any():
        return None, lengths, size
    if raw is not None:
        return raw[:, 4 : 4 + size], lengths, size
    data = array.buffers[2][int(offsets[0]) : int(offsets[-1])]
    if len(data) != size * array.length:
        raise array.malformed("a buffer is too short")
    return np.frombuffer(data, np.uint8).reshape(-1, size), lengths, size


def _decoded(array: Array, dictionary: Array, valid: Any) -> Words:
    assert array.field.keys is not None
    index = array.numpy(1, array.field.keys.format).astype(np.int64)
    if valid is not None:
        index = np.where(valid, index, -1)
    used, places = np.unique(index, return_inverse=True)
    real = used[used >= 0]
    if len(used) - len(real) > (valid is not None) or len(real) and real[-1] >= dictionary.length:
        raise array.malformed("an index is outside of its dictionary")
    found: list[str | None] = [None] * (len(used) - len(real))
    for i in real.tolist():
        found += words(dictionary.slice(i, i + 1)).words
    return Words(found, places)


def _slices(array: Array) -> list[Any]:
    offsets = array.offsets()
    data = bytes(array.buffers[2][int(offsets[0]) : int(offsets[-1])])
    if len(data) != offsets[-1] - offsets[0]:
        raise array.malformed("a buffer is too short")
    ends = (offsets - offsets[0]).tolist()
    return [data[start:end].decode() for start, end in zip(ends, ends[1:])]


def _views(array: Array, lengths: Any, valid: Any) -> list[Any]:
    raw, found, buffers = array.numpy(1, "V16").tobytes(), [], array.buffers[2:]
    lengths = lengths if valid is None else np.where(valid, lengths, 0)
    if len(lengths) and (lengths.min() < 0 or lengths.sum(dtype=np.int64) > MAX_TEXT_BYTES):
        raise array.malformed(f"its texts have more than {MAX_TEXT_BYTES} bytes in all")
    for at, length in zip(range(4, len(raw), 16), lengths.tolist()):
        if length <= _INLINE:
            part = raw[at : at + length]
        else:
            number, start = struct.unpack_from("<ii", raw, at + 4)
            if not (0 <= number < len(buffers) and 0 <= start <= len(buffers[number]) - length):
                raise array.malformed("a text is outside of its buffers")
            part = bytes(buffers[number][start : start + length])
        found.append(part.decode())
    return found


def python(array: Array) -> list[Any]:
    """Return a column as the values that JSON would give: times as text, structs as dicts, None where null."""
    kind = array.field.type.name
    if array.dictionary is not None or kind in TEXTS:
        known, places = words(array)
        return [known[place] for place in places.tolist()]
    if unsupported(array.field):
        raise array.malformed(f"its type {unsupported(array.field)} is not supported")
    if kind == "null":
        return [None] * array.length
    valid = array.valid()
    if kind == "record":
        stop = array.start + array.length
        found: list[Any] = rows(tuple(child.slice(array.start, stop) for child in array.children), array.length)
    elif kind in LISTS:
        offsets, parts = array.offsets(), python(items(array))
        ends = (offsets - offsets[0]).tolist()
        found = [parts[start:end] for start, end in zip(ends, ends[1:])]
    elif kind == "flag":
        found = array.bits(1).tolist()
    elif kind == "decimal":
        halves = array.numpy(1, "<u8,<i8").tolist()
        found = [(low + (high << 64)) / 10**array.field.type.detail for low, high in halves]
    elif kind in ("timestamp", "date"):
        found = _clock(array)
    else:
        found = array.numpy(1, array.field.type.format).tolist()
    if valid is None:
        return found
    return [value if there else None for value, there in zip(found, valid.tolist(), strict=True)]


def _clock(array: Array) -> list[str]:
    kind = array.field.type
    if kind.name == "date" and kind.format == "<i4":
        raw = array.numpy(1, "<i4").astype("M8[D]")
    else:
        raw = array.numpy(1, kind.format)
    coarse = kind.format == "<M8[ns]"  # Pydantic truncates what is beyond microseconds
    return list(np.datetime_as_string(raw.astype("M8[us]") if coarse else raw).tolist())


def rows(columns: tuple[Array, ...], length: int) -> list[dict[str, Any]]:
    """Return a dict per row."""
    names = [column.field.name for column in columns]
    if not columns:
        return [{} for _ in range(length)]
    return [dict(zip(names, values, strict=True)) for values in zip(*map(python, columns), strict=True)]
