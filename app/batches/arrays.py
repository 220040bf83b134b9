"""Columns of Arrow streams as arrays for the problem, or as the values that JSON would have.

Pydantic validates each text once, and of numbers the least and the greatest, where the schema allows that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import types
from pydantic import ValidationError

from app.batches.fields import REQUIRED, ArrowField, Record
from app.problem_kit.features import Words

_KINDS = {
    "null": (types.is_null,),
    "text": (types.is_string, types.is_large_string, types.is_string_view),
    "bool": (types.is_boolean,),
    "int": (types.is_integer,),
    "float": (types.is_floating,),
    "decimal": (types.is_decimal,),
    "timestamp": (types.is_timestamp,),
    "struct": (types.is_struct,),
    "list": (types.is_list, types.is_large_list, types.is_fixed_size_list),
}
_ACCEPTED = {
    "text": ({"text"}, "text"),
    "flag": ({"bool"}, "bool"),
    "integer": ({"int", "float"}, "integers"),
    "number": ({"int", "float", "decimal"}, "numbers"),
    "time": ({"timestamp", "text"}, "timestamps without time zone, or text"),
    "record": ({"struct"}, "structs"),
    "list": ({"list"}, "lists"),
}
_FIRST_DAY, _LAST_DAY = np.datetime64("0001-01-01", "D"), np.datetime64("9999-12-31", "D")  # of datetime


class NeedsFullValidation(Exception):
    """Pydantic has to validate a batch row by row, because a value may be invalid."""


class Lists(NamedTuple):
    """A column of lists: the length of each, 0 if it is null, and the items of all, one after another."""

    counts: np.ndarray[Any, np.dtype[np.int64]]
    values: Any


def kind_of(arrow: pa.DataType) -> str:
    """Return the kind of an Arrow type; the name of a type that is not read."""
    if types.is_dictionary(arrow):
        words = kind_of(arrow.value_type)
        return words if words == "text" else f"dictionary of {words}"
    if types.is_timestamp(arrow) and arrow.tz is not None:
        return "timestamp with time zone"
    return next((kind for kind, tests in _KINDS.items() if any(test(arrow) for test in tests)), str(arrow))


def mismatches(record: Record, columns: Sequence[pa.Field], at: tuple[str, ...] = ()) -> Iterator[tuple[Any, str]]:
    """Yield place and message of each column that is missing, unknown, repeated or of another type."""
    names = Counter(column.name for column in columns)
    yield from (((*at, name), "The column is given more than once") for name, count in names.items() if count > 1)
    for column in columns:
        if column.name in record.fields:
            yield from _mismatch(record.fields[column.name], column.type, (*at, column.name))
        else:
            yield (*at, column.name), "Extra inputs are not permitted"
    for name, field in record.fields.items():
        if field.default is REQUIRED and name not in names:
            yield (*at, name), "Field required"


def _mismatch(field: ArrowField, arrow: pa.DataType, at: tuple[str, ...]) -> Iterator[tuple[Any, str]]:
    kind = kind_of(arrow)
    accepted, wanted = _ACCEPTED[field.kind]
    if kind == "null":
        return
    if kind not in accepted:
        yield at, f"The column must have {wanted}, not {kind}"
    elif isinstance(field.item, Record):
        yield from mismatches(field.item, arrow.fields, at)
    elif field.item is not None:
        yield from _mismatch(field.item, arrow.value_type, at)


def table(record: Record, names: Sequence[str], columns: Sequence[pa.Array], length: int) -> dict[str, Any]:
    """Return the columns of a record, those that are absent too; raise as `values` does."""
    by_name, found = dict(zip(names, columns, strict=True)), {}
    for name, field in record.fields.items():
        column = by_name.get(name)
        if column is None and field.default is not None:
            column = pa.repeat(field.default, length)
        elif column is None or types.is_null(column.type):
            column = pa.nulls(length, field.arrow())
        found[name] = values(field, column)
    return found


def values(field: ArrowField, array: pa.Array) -> Any:
    """Return a column as arrays; raise NeedsFullValidation if a value may be invalid.

    A text is `Words`, None if null; a number, float64, NaN if null; an integer, int64, or as a number if it
    may be null; a flag, bool, likewise; a time, datetime64[us], NaT if null; a record, a dict; a list, `Lists`.
    """
    if array.null_count and not field.nullable:
        raise NeedsFullValidation
    if field.kind == "list":
        return _lists(field, array)
    if field.kind == "record":
        return _record(field, array)
    if field.kind == "text":
        words = _words(array)
        _validate(field, [word for word in words.words if word is not None])
        return words
    return _times(array) if field.kind == "time" else _numbers(field, array)


def _validate(field: ArrowField, some: list[Any]) -> None:
    """Raise NeedsFullValidation unless Pydantic accepts these values and does not change them."""
    try:
        if field.validate is None or field.validate(some) != some:
            raise NeedsFullValidation
    except ValidationError as err:
        raise NeedsFullValidation from err


def _record(field: ArrowField, array: pa.Array) -> dict[str, Any]:
    if array.null_count or not isinstance(field.item, Record) or field.item.validators:
        raise NeedsFullValidation
    return table(field.item, *_children(array), len(array))


def _children(array: pa.StructArray) -> tuple[list[str], list[pa.Array]]:
    return [child.name for child in array.type.fields], [array.field(i) for i in range(array.type.num_fields)]


def _lists(field: ArrowField, array: pa.Array) -> Lists:
    ends, items = _items(array)
    counts, valid = np.diff(ends), _valid(array)
    if counts[~valid].any() or not isinstance(field.item, ArrowField):
        raise NeedsFullValidation
    lengths = counts[valid].tolist() or [0]
    _validate(field, [[None] * min(lengths), [None] * max(lengths)] if valid.any() else [])
    items = pa.nulls(len(items), field.item.arrow()) if types.is_null(items.type) else items
    return Lists(counts, values(field.item, items))


def _items(array: pa.Array) -> tuple[np.ndarray[Any, np.dtype[np.int64]], pa.Array]:
    """Return where lists begin and end among their items, n + 1 positions, and the items of all."""
    if types.is_fixed_size_list(array.type):
        ends = np.arange(array.offset, array.offset + len(array) + 1) * array.type.list_size
    else:
        ends = array.offsets.to_numpy().astype(np.int64)
    return ends - ends[0], array.values.slice(int(ends[0]), int(ends[-1] - ends[0]))


def _valid(array: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which values are not null."""
    if not array.null_count:
        return np.ones(len(array), np.bool_)
    if types.is_null(array.type):
        return np.zeros(len(array), np.bool_)
    bits = np.unpackbits(np.frombuffer(array.buffers()[0], np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].astype(np.bool_)


def _numbers(field: ArrowField, array: pa.Array) -> Any:
    found = array.to_numpy(zero_copy_only=False)
    if field.kind == "number" or field.nullable:
        found = found.astype(np.float64)  # also of decimals, and of flags with None
    real = found[_valid(array)] if array.null_count else found
    if real.dtype.kind == "f" and not np.isfinite(real).all():
        raise NeedsFullValidation
    if field.kind == "integer":
        if (np.abs(real.astype(np.float64)) >= 2**53).any() or (real % 1).any():
            raise NeedsFullValidation
        found = found if field.nullable else found.astype(np.int64)
    extremes = [real.min(), real.max()] if field.interval and len(real) else np.unique(real)
    some = np.array(extremes).tolist()
    _validate(field, [bool(value) for value in some] if field.kind == "flag" else some)
    return found


def _times(array: pa.Array) -> Any:
    if not types.is_timestamp(array.type):
        raise NeedsFullValidation  # texts
    raw = array.to_numpy(zero_copy_only=False)
    real = raw[_valid(array)]
    coarse = raw.dtype != "M8[ns]"  # nanoseconds since 1970 are always within a datetime's years
    if np.isnat(real).any() or coarse and ((real < _FIRST_DAY).any() or (real > _LAST_DAY).any()):
        raise NeedsFullValidation
    return raw.astype("M8[us]")


def _words(array: pa.Array) -> Words:
    """Return a column of texts; of a dictionary, the words that are used, each copied once."""
    if types.is_dictionary(array.type):
        indices = np.where(_valid(array), array.indices.to_numpy(zero_copy_only=False), -1).astype(np.int64)
        used, places = np.unique(indices, return_inverse=True)
        return Words([None if i < 0 else array.dictionary[i].as_py() for i in used.tolist()], places)
    known: dict[str | None, int] = {}
    texts = array.to_numpy(zero_copy_only=False).tolist()
    numbers = np.array([known.setdefault(text, len(known)) for text in texts], np.int64)
    return Words(list(known), numbers)


def rows(names: Sequence[str], columns: Sequence[pa.Array], length: int) -> list[dict[str, Any]]:
    """Return a dict for each row, with the values that JSON would have."""
    if not names:
        return [{} for _ in range(length)]
    return [dict(zip(names, row, strict=True)) for row in zip(*map(_python, columns), strict=True)]


def _python(array: pa.Array) -> list[Any]:
    kind = kind_of(array.type)
    if kind == "text":
        words, places = _words(array)
        return [words[place] for place in places.tolist()]
    if kind == "struct":
        found: list[Any] = rows(*_children(array), len(array))
    elif kind == "list":
        ends, items = _items(array)
        parts = _python(items)
        found = [parts[start:end] for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
    elif kind == "timestamp":  # Pydantic truncates what is beyond microseconds
        raw = array.to_numpy(zero_copy_only=False)
        found = np.datetime_as_string(raw.astype("M8[us]") if raw.dtype == "M8[ns]" else raw).tolist()
    elif kind in ("float", "decimal"):
        found = array.to_numpy(zero_copy_only=False).astype(np.float64).tolist()
    else:
        return list(array.to_pylist())
    if not array.null_count:
        return found
    return [value if there else None for value, there in zip(found, _valid(array).tolist(), strict=True)]
