"""The predictions of one block, in a process of its own for each core."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from app.api.batches import BATCH
from app.api.bodies import Invalid
from app.columns.batches import COLUMNS
from app.features import Floats
from app.interface import Request, compute
from app.model.bundle import Bundle, predict
from app.registry.version import load

FIELDS = tuple(Request.model_fields)
_PLACE = re.compile(rf"{COLUMNS}\.(\w+)\.(\d+)(.*)")


class BlockInvalid(Exception):
    """The columns of a block do not fit the request's schema."""


class Scored(NamedTuple):
    """The probabilities of a block, NaN for rejected rows, and why each of these was rejected, by its position."""

    probabilities: Floats
    rejected: dict[int, list[str]]


class Worker:
    """What a process keeps: the model."""

    bundle: Bundle | None = None

    @classmethod
    def ready(cls) -> None:
        """Do nothing: what a process does first is to import this file."""

    @classmethod
    def start(cls, folder: Path) -> Bundle:
        """Load the model of a folder, unless this process has one; return it."""
        cls.bundle = cls.bundle or load(folder, "baked").bundle
        return cls.bundle

    @classmethod
    def score(cls, folder: Path, block: bytes, rows: int, most: int) -> Scored:
        """Return the predictions of a block, an Arrow stream; raise BlockInvalid if its columns do not fit.

        `folder` has the model. Rows that the schema rejects are left out; of more than `most`, only some are listed.
        """
        bundle, kept, rejected = cls.start(folder), np.arange(rows), dict[int, list[str]]()
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
        return Scored(risks, rejected)


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
