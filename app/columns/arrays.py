"""Columns of Arrow streams as arrays for the problem, checked by the described request schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from app.columns.fields import REQUIRED, Field, Record
from app.columns.plain import LISTS, MAX_ITEMS, MAX_TEXT_BYTES, TEXTS, items, words
from app.columns.stream import Array
from app.columns.stream import Field as Column
from app.columns.stream import unsupported
from app.features import Words

_ACCEPTED = {
    "text": (TEXTS, "text"),
    "flag": ({"flag"}, "bool"),
    "integer": ({"int", "float"}, "integers"),
    "number": ({"int", "float", "decimal"}, "numbers"),
    "time": ({"timestamp", *TEXTS}, "timestamps without time zone, or text"),
    "record": ({"record"}, "structs"),
    "list": (LISTS, "lists"),
}
_FIRST_DAY, _LAST_DAY = np.datetime64("0001-01-01", "D"), np.datetime64("9999-12-31", "D")  # of datetime
_NAMES = {"record": "struct", "text_view": "text", "large_text": "text", "large_list": "list", "fixed_list": "list"}


class Doubtful(Exception):
    """Values that Pydantic has to judge, row by row."""


class Lists(NamedTuple):
    """A column of lists: the length of each, 0 if it is null, and the items of all, one after another."""

    counts: np.ndarray[Any, np.dtype[np.int64]]
    values: Any


def mismatches(record: Record, columns: tuple[Column, ...], at: tuple[str, ...] = ()) -> Iterator[tuple[Any, str]]:
    """Yield place and message of each column that is missing, unknown, repeated or of another type."""
    names = [column.name for column in columns]
    for i, column in enumerate(columns):
        place = (*at, column.name)
        if column.name in names[:i]:
            yield place, "The column is given more than once"
        elif column.name not in record.fields:
            yield place, "Extra inputs are not permitted"
        else:
            yield from _mismatch(record.fields[column.name], column, place)
    for name, field in record.fields.items():
        if field.default is REQUIRED and name not in names:
            yield (*at, name), "Field required"


def _mismatch(field: Field | Record | None, column: Column, at: tuple[str, ...]) -> Iterator[tuple[Any, str]]:
    name = column.type.name
    if name == "null" or field is None:
        return
    if isinstance(field, Record):
        field = Field("record", {}, item=field)
    accepted, wanted = _ACCEPTED[field.kind]
    zoned = name == "timestamp" and column.type.detail
    if name not in accepted or zoned or (bad := unsupported(column)) and not column.children:
        given = "timestamp with time zone" if zoned else unsupported(column) or _NAMES.get(name, name)
        yield at, f"The column must have {wanted}, not {given}"
    elif name == "record" and isinstance(field.item, Record):
        yield from mismatches(field.item, column.children, at)
    elif name in LISTS:
        yield from _mismatch(field.item, column.children[0], at)
    elif bad:
        yield at, f"The column must have {wanted}, not {bad}"


def values(field: Field | Record, array: Array | None, length: int) -> Any:
    """Return a column of a described field as arrays; raise Doubtful unless all of its values are surely valid.

    A text is `Words`, None if null; a number, float64, NaN if null; an integer, int64, or as a number if it
    may be null; a flag, bool, likewise; a time, datetime64[us], NaT if null; a record, a dict; a list, `Lists`.
    """
    if isinstance(field, Record):
        field = Field("record", {}, item=field)
    if array is None or array.field.type.name == "null":
        return _absent(field, length, given=array is not None)
    valid = array.valid()
    if valid is not None and valid.all():
        valid = None
    if valid is not None and not field.nullable:
        raise Doubtful
    readers = {"list": _lists, "record": _record, "text": _texts, "time": _times, "flag": _flags}
    return readers.get(field.kind, _numbers)(field, array, valid)


def table(record: Record, columns: tuple[Array, ...], length: int) -> dict[str, Any]:
    """Return the columns of a record, those that are absent too; raise as `values` does."""
    by_name = {column.field.name: column for column in columns}
    return {name: values(field, by_name.get(name), length) for name, field in record.fields.items()}


def _record(field: Field, array: Array, valid: Any) -> dict[str, Any]:
    record = field.item
    if valid is not None or not isinstance(record, Record) or record.checks or record.whole:
        raise Doubtful
    stop = array.start + array.length
    children = tuple(child.slice(array.start, stop) for child in array.children)
    return table(record, children, array.length)


def _flags(_: Field, array: Array, valid: Any) -> Any:
    found = array.bits(1)
    return found if valid is None else np.where(valid, found, np.nan)


def _absent(field: Field, length: int, given: bool) -> Any:
    if not given and field.kind in ("flag", "integer", "number") and field.default not in (REQUIRED, None):
        return np.full(length, field.default)
    if not field.nullable or (not given and field.default is not None):
        raise Doubtful
    if field.kind == "text":
        return Words([None], np.zeros(length, np.int64))
    if field.kind == "list":
        item = field.item
        assert item is not None
        return Lists(np.zeros(length, np.int64), _nothing(item))
    if field.kind == "time":
        return np.full(length, "NaT", "M8[us]")
    if field.kind == "record":
        raise Doubtful
    return np.full(length, np.nan)


def _nothing(field: Field | Record) -> Any:
    """Return a column without values."""
    if isinstance(field, Record):
        return {name: _nothing(part) for name, part in field.fields.items()}
    if field.kind == "record" and field.item is not None:
        return _nothing(field.item)
    return _absent(field._replace(nullable=True, default=None), 0, given=False)


def _lists(field: Field, array: Array, valid: Any) -> Lists:
    counts = np.diff(array.offsets())
    real = counts if valid is None else counts[valid]
    low, high = field.bounds.get("min_length", 0), field.bounds.get("max_length", MAX_ITEMS)
    if len(real) and (real.min() < low or real.max() > high) or valid is not None and counts[~valid].any():
        raise Doubtful
    found = items(array)
    assert field.item is not None
    return Lists(counts, values(field.item, found, found.length))


def _numbers(field: Field, array: Array, valid: Any) -> Any:
    found = _decimals(array) if array.field.type.name == "decimal" else array.numpy(1, array.field.type.format)
    real = found if valid is None else found[valid]
    if field.kind == "integer":
        if real.dtype.kind == "f" and not (np.isfinite(real).all() and (np.abs(real) < 2**53).all()):
            raise Doubtful
        if (real != real.astype(np.int64)).any() or real.dtype.kind == "u" and (real > 2**53).any():
            raise Doubtful
        if valid is None:
            found = found.astype(np.int64)
    elif real.dtype.kind == "f" and not np.isfinite(real).all():
        raise Doubtful
    _in_bounds(field, real)
    if valid is None and field.kind == "integer" and not field.nullable:
        return found
    found = found.astype(np.float64)
    if valid is not None:
        found[~valid] = np.nan
    return found


def _in_bounds(field: Field, found: Any) -> None:
    checks = {
        "ge": lambda bound: found >= bound,
        "gt": lambda bound: found > bound,
        "le": lambda bound: found <= bound,
        "lt": lambda bound: found < bound,
        "multiple_of": lambda bound: found % bound == 0,
    }
    if not all(checks[name](bound).all() for name, bound in field.bounds.items()):
        raise Doubtful


def _decimals(array: Array) -> Any:
    words = array.numpy(1, "<i8,<i8")
    low, scale = words["f0"], array.field.type.detail
    if (words["f1"] != low >> 63).any() or (np.abs(low) > 2**53).any() or scale > 22:
        raise Doubtful
    return low / 10.0**scale  # both are exact, so the quotient is the nearest number


def _times(field: Field, array: Array, valid: Any) -> Any:
    if array.field.type.name != "timestamp":
        raise Doubtful  # texts
    raw = array.numpy(1, array.field.type.format)
    real = raw if valid is None else raw[valid]
    if field.bounds or np.isnat(real).any():
        raise Doubtful
    if raw.dtype != "M8[ns]" and ((real < _FIRST_DAY).any() or (real > _LAST_DAY).any()):
        raise Doubtful
    found = raw.astype("M8[us]")
    if valid is not None:
        found[~valid] = np.datetime64("NaT")
    return found


def _texts(field: Field, array: Array, _: Any) -> Words:
    found = words(array)
    kinds = {kind for kind in found.words if kind is not None}
    low, high = field.bounds.get("min_length", 0), field.bounds.get("max_length", MAX_TEXT_BYTES)
    matches = re.compile(field.bounds.get("pattern", "")).match
    if not all(low <= len(kind) <= high and matches(kind) for kind in kinds):
        raise Doubtful
    if field.choices and not kinds <= set(field.choices) or None in found.words and not field.nullable:
        raise Doubtful
    return found
