"""The predictions of one block, in a process of its own for each core."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json  # pylint: disable=unused-import # as pa.json
from pydantic import ValidationError

from app.api.edge.bodies import Invalid
from app.api.routes.batch_body import BATCH
from app.batches.arrays import mismatches
from app.batches.fields import ArrowField, Record
from app.batches.read import COLUMNS_KEY, RECORD
from app.interface import Request, arrays_of_requests, compute
from app.model.bundles import Bundle, predict
from app.problem_kit.features import Floats
from app.registry.registered import load

FIELDS = tuple(Request.model_fields)
_PLACE = re.compile(rf"{COLUMNS_KEY}\.(\w+)\.(\d+)(.*)")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?")
"""The form of times that Arrow and the request's schema read alike."""


class BlockInvalid(Exception):
    """The columns of a block do not fit the request's schema."""


class ScoredBlock(NamedTuple):
    """The probabilities of a block, NaN for rejected rows, and why each of these was rejected, by its position."""

    probabilities: Floats
    rejected: dict[int, list[str]]


class Worker:
    """What a process keeps: the model."""

    bundle: Bundle | None = None

    @classmethod
    def ready(cls) -> None:
        """Do nothing: a new process imports this module first."""

    @classmethod
    def start(cls, folder: Path) -> Bundle:
        """Load the model of a folder, unless this process has one; return it."""
        cls.bundle = cls.bundle or load(folder, "baked").bundle
        return cls.bundle

    @classmethod
    def score(cls, folder: Path, block: bytes, rows: int, most: int, text: bool = False) -> ScoredBlock:
        """Return the predictions of a block, an Arrow stream; raise BlockInvalid if its columns do not fit.

        `folder` has the model; `text` is whether the cells are those of CSV. Rows that the schema rejects are left out;
        of more than `most`, only some are listed.
        """
        bundle, kept, rejected = cls.start(folder), np.arange(rows), dict[int, list[str]]()
        if text:
            cells = pa.ipc.open_stream(block).read_all()
            try:
                block = stream(typed(cells))
            except NotTyped:
                return _scored_by_row(cells, bundle)
        risks = np.full(rows, np.nan)
        while len(kept):
            try:
                received = BATCH.arrow(block if len(kept) == rows else _taken(block, kept))
            except Invalid as err:
                bad = _by_row(err)
                rejected |= {int(kept[row]): reasons for row, reasons in bad.items()}
                kept = np.delete(kept, list(bad))
                if len(rejected) > most:
                    break
                continue
            parts = [compute(part, bundle.lookups) for part in received.columns]
            risks[kept] = predict(bundle.booster, np.concatenate(parts))
            break
        return ScoredBlock(risks, rejected)


class NotTyped(Exception):
    """A block of CSV with a cell that the schema may reject, or accepts although Arrow does not."""


def typed(cells: pa.Table) -> pa.Table:
    """Return the columns of CSV with the types of the request's schema; raise NotTyped if a cell may not fit."""
    if RECORD is None:
        raise NotTyped
    names = [name for name in cells.schema.names if name in RECORD.fields]
    return pa.table({name: _typed(cells.column(name), name, RECORD.fields[name]) for name in names})


def _typed(cells: pa.ChunkedArray, name: str, field: ArrowField) -> Any:
    if field.kind == "text":
        return cells
    if field.kind == "time" and not all(map(_TIME.fullmatch, cells.drop_null().to_pylist())):
        raise NotTyped
    try:
        if field.item is None:
            return cells.cast(field.arrow())
        found = _parsed(cells)
    except pa.ArrowException as err:
        raise NotTyped from err
    if any(mismatches(Record({name: field}, False), [pa.field(name, found.type)])):
        raise NotTyped
    return found


def _parsed(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return cells of JSON with the types that Arrow finds in them; raise ArrowException or NotTyped if it cannot."""
    lines = "\n".join(f'{{"":{"null" if cell is None else cell}}}' for cell in cells.to_pylist()).encode()
    options = pa.json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
    table = pa.json.read_json(pa.BufferReader(lines), options)
    if table.schema.names != [""] or table.num_rows != len(cells):
        raise NotTyped  # a cell that is more than one value, or has several lines
    return table.column(0)


def _scored_by_row(cells: pa.Table, bundle: Bundle) -> ScoredBlock:
    """Return the predictions of a block of CSV whose rows are validated one by one."""
    risks, rejected = np.full(cells.num_rows, np.nan), dict[int, list[str]]()
    validate = Request.model_validate if RECORD else Request.model_validate_strings
    requests = {}
    for i, row in enumerate(cells.to_pylist()):
        values = {name: _value(name, cell) for name, cell in row.items() if cell is not None}
        try:
            requests[i] = validate(values)
        except ValidationError as err:
            error = Invalid()
            error.add(err.errors(), ())
            rejected[i] = [f"{one.field}: {one.message}" for one in error.errors]
    if requests:
        features = compute(arrays_of_requests(list(requests.values())), bundle.lookups)
        risks[list(requests)] = predict(bundle.booster, features)
    return ScoredBlock(risks, rejected)


def _value(name: str, cell: str) -> Any:
    """Return a cell of CSV as JSON has it; as text if it is not of the field's kind, so that the schema refuses it."""
    field = RECORD.fields.get(name) if RECORD else None
    if field is None or field.kind in ("text", "time"):
        return cell
    try:
        return pa.scalar(cell).cast(field.arrow()).as_py() if field.item is None else json.loads(cell)
    except (pa.ArrowException, ValueError):
        return cell


def _by_row(err: Invalid) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for error in err.errors:
        place = _PLACE.fullmatch(error.field)
        if place is None:
            raise BlockInvalid("; ".join(f"{one.field}: {one.message}" for one in err.errors[:3])) from err
        column, row, rest = place.groups()
        found.setdefault(int(row), []).append(f"{column}{rest}: {error.message}")
    return found


def _taken(block: bytes, rows: Any) -> bytes:
    return stream(pa.ipc.open_stream(block).read_all().take(rows).combine_chunks())


def stream(block: pa.Table) -> bytes:
    """Return a block as an Arrow stream, the form in which it goes to a process."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, block.schema) as writer:
        writer.write_table(block)
    return bytes(sink.getvalue())


def listed(reasons: dict[int, list[str]], block: pa.Table, first: int) -> list[dict[str, Any]]:
    """Return rejected rows for the rejects file: position in the input file, reasons, values."""
    return [
        {"row": first + row, "reasons": why, "values": block.slice(row, 1).to_pylist()[0]}
        for row, why in sorted(reasons.items())
    ]
