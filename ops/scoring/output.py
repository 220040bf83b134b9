"""The output of scoring: parts with their receipts, complete or not there at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from app.errors import OnTimeError, Refused
from app.registry.registered import Registered
from ops.scoring.files import BLOCK_ROWS, Input, located
from ops.scoring.predict import FIELDS, ScoredBlock, listed

PART_ROWS = 100 * BLOCK_ROWS
"""Rows of an input file whose predictions are in one part."""
GROUP_BLOCKS = 10
"""Blocks of a row group of the output."""

MARK = {b"on-time": b"part"}
"""Metadata of a part, which distinguishes it from the files of others."""
EMPTY = pa.schema({"row": pa.int64(), "probability": pa.float64(), "alert": pa.bool_()})
"""The columns of a part without rows."""


class OutputInvalid(OnTimeError):
    """An output folder that cannot be written, or has other predictions."""


class TooManyRejected(Refused):
    """More rows violate the request's schema than are tolerated."""


class Job(NamedTuple):
    """What is scored with what, to where; `tolerated` is the share of rows of a part that may be rejected."""

    source: str
    target: str
    model: Registered
    folder: Path
    tolerated: float
    workers: int


class Part(NamedTuple):
    """The receipt of a complete part, a JSON file beside it."""

    file: str
    input: str
    input_size: int
    input_modified: str
    first_row: int
    rows: int
    rejected: int
    last: bool
    """Whether the part ends with the input file."""
    model: str
    version: str
    bundle_digest: str
    threshold: float


class Target:
    """The output folder."""

    def __init__(self, job: Job, threshold: float) -> None:
        self.job, self.threshold = job, threshold
        self.system, self.path = located(job.target)
        source_system, source = located(job.source)
        if source_system == self.system and f"{self.path}/".startswith(f"{source}/"):
            raise OutputInvalid(
                f"{self.path} is in the input {source}, which a second call would read: name another folder."
            )

    def place(self, file: Input, number: int, suffix: str = ".parquet") -> str:
        """Return the path of a part, or of a file beside it with another suffix."""
        return f"{self.path}/{file.name}-{number:05d}{suffix}"

    def known(self, file: Input) -> list[Part]:
        """Return the leading complete parts of a file; raise OutputInvalid if a part belongs to another input."""
        found: list[Part] = []
        part = self.receipt(file, 0)
        while part:
            found.append(part)
            part = None if part.last else self.receipt(file, len(found))
        return found

    def receipt(self, file: Input, number: int) -> Part | None:
        """Return the receipt of a part, None if it is not complete; raise OutputInvalid if it is of another input."""
        place = self.place(file, number, ".json")
        if self.system.get_file_info(place).type != fs.FileType.File:
            return None
        try:
            with self.system.open_input_stream(place) as opened:
                part = Part(**json.loads(opened.read()))
        except (ValueError, TypeError) as err:
            raise OutputInvalid(
                f"{place} is not a receipt of a part. Choose another folder, or move the file."
            ) from err
        reason = ""
        if part.bundle_digest != self.job.model.bundle_digest:
            reason = f"predictions of version {part.version}, not of version {self.job.model.version}"
        elif (part.input_size, part.input_modified) != (file.size, file.modified):
            reason = f"predictions of {file.path} as it was before it changed"
        if reason:
            raise OutputInvalid(f"{place} has {reason}. Choose another folder, or remove this one.")
        return part

    def check_replaceable(self, place: str) -> None:
        """Raise OutputInvalid for a file that is not a part: an interrupted call leaves parts without a receipt."""
        if self.system.get_file_info(place).type == fs.FileType.NotFound:
            return
        try:
            with self.system.open_input_file(place) as opened:
                if MARK.items() <= (pq.read_schema(opened).metadata or {}).items():
                    return
        except (pa.ArrowException, OSError):
            pass  # not Parquet
        raise OutputInvalid(f"{place} is not a part of this command. Choose another folder, or move the file.")

    @contextmanager
    def writing(self, place: str) -> Iterator[Any]:
        """Yield a file to write, which gets its name when the block ends without an error."""
        draft = f"{place}.partial"
        try:
            self.system.create_dir(place.rpartition("/")[0], recursive=True)
            with self.system.open_output_stream(draft) as opened:
                yield opened
            self.system.move(draft, place)
        except OSError as err:
            cause = os.strerror(err.errno) if err.errno else str(err)
            raise OutputInvalid(
                f"{place} cannot be written: {cause}. Complete parts are kept: "
                "repeat the command when this is solved."
            ) from err


class Writer:
    """Writes one part: the rows with their predictions, the rejected rows, and the receipt."""

    def __init__(self, target: Target, file: Input, number: int) -> None:
        self.target, self.file, self.number = target, file, number
        self.first, self.rows = number * PART_ROWS, 0
        self.rejected: list[dict[str, Any]] = []
        self._blocks: list[pa.Table] = []
        self._parquet: pq.ParquetWriter | None = None
        self._sink: Any = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """Open the file of the part, which gets its name when the block ends without an error."""
        place = self.target.place(self.file, self.number)
        self.target.check_replaceable(place)
        with self.target.writing(place) as sink:
            self._sink = sink
            yield
            self._check_rejected(self.first + self.rows)  # of the file so far
            self._flush()
            (self._parquet or pq.ParquetWriter(sink, EMPTY.with_metadata(MARK))).close()

    def add(self, block: pa.Table, scored: ScoredBlock) -> None:
        """Add a block; raise TooManyRejected when more rows are rejected than tolerated."""
        first = self.first + self.rows
        self.rejected += listed(scored.rejected, block, first)
        self.rows += block.num_rows
        self._check_rejected(max(self.rows, BLOCK_ROWS))
        columns = {"row": pa.array(np.arange(first, first + block.num_rows))}
        columns |= {name: block.column(name) for name in block.schema.names if name not in FIELDS}
        columns["probability"] = pa.array(scored.probabilities)
        columns["alert"] = pa.array(scored.probabilities >= self.target.threshold)
        kept = pa.array(~np.isnan(scored.probabilities))
        self._blocks.append(pa.table(columns).filter(kept))
        if len(self._blocks) == GROUP_BLOCKS:
            self._flush()

    def _check_rejected(self, rows: int) -> None:
        """Raise TooManyRejected if more are rejected than is tolerated of this number of rows."""
        tolerated = self.target.job.tolerated
        if len(self.rejected) <= tolerated * rows:
            return
        first = self.rejected[0]
        raise TooManyRejected(
            f"{len(self.rejected):,} of {self.rows:,} rows of {self.file.path} violate the request's schema, more than "
            f"{tolerated:.1%}; row {first['row']:,}: {'; '.join(first['reasons'])}. Correct them, or raise --rejected."
        )

    def _flush(self) -> None:
        if self._blocks:
            table = pa.concat_tables(self._blocks).combine_chunks()
            self._parquet = self._parquet or pq.ParquetWriter(self._sink, table.schema.with_metadata(MARK))
            self._parquet.write_table(table, row_group_size=table.num_rows or 1)
        self._blocks = []

    def complete(self, last: bool) -> Part:
        """Write the rejected rows, and then the receipt, which makes the part complete; return it."""
        target, model = self.target, self.target.job.model
        if self.rejected:
            with target.writing(target.place(self.file, self.number, ".rejected.jsonl")) as opened:
                opened.write("".join(json.dumps(row, default=str) + "\n" for row in self.rejected).encode())
        part = Part(
            file=target.place(self.file, self.number).removeprefix(f"{target.path}/"),
            input=self.file.path,
            input_size=self.file.size,
            input_modified=self.file.modified,
            first_row=self.first,
            rows=self.rows,
            rejected=len(self.rejected),
            last=last,
            model=model.name,
            version=model.version,
            bundle_digest=model.bundle_digest,
            threshold=target.threshold,
        )
        with target.writing(target.place(self.file, self.number, ".json")) as opened:
            opened.write((json.dumps(part._asdict(), indent=1) + "\n").encode())
        return part
