"""The files that are scored: found locally or in S3, and read in blocks of fixed size."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv, fs

from app.batches.read import MAX_ROWS
from app.errors import OnTimeError

BLOCK_ROWS = MAX_ROWS
"""Rows that are read and predicted together; as many as in a batch of the service."""
MOST_PARTS = 4
"""Parts of a block that are left as they are."""
SUFFIXES = (".parquet", ".csv", ".csv.gz", ".arrow", ".feather", ".arrows")
STREAMED = ".arrows"
HIDDEN = (".", "_")
"""First characters of files and folders that are left out: Spark's _temporary and _SUCCESS, macOS' ._ files."""
ADDED_COLUMNS = ("row", "probability", "alert")
"""Columns of the output, which an input must not have."""


class InputInvalid(OnTimeError):
    """An input file that is missing, damaged, or lacks a column."""


class Input(NamedTuple):
    """One input file; `name` is its path below the input folder without the suffix."""

    name: str
    path: str
    size: int
    modified: str


def located(address: str) -> tuple[fs.FileSystem, str]:
    """Return the file system and the path of an address: a local path or an S3 address."""
    if "://" in address:
        system, path = fs.FileSystem.from_uri(address)
        return system, path.rstrip("/")
    return fs.LocalFileSystem(), str(Path(address).resolve())


def inputs(system: fs.FileSystem, path: str) -> list[Input]:
    """Return the input files at a path, a file or a folder, in the order of their names.

    Raises InputInvalid for a file that cannot be read, so that none is skipped.
    """
    info = system.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise InputInvalid(f"{path} does not exist.")
    if info.type == fs.FileType.File:
        return [_input(info, PurePosixPath(path).parent)]
    folder = PurePosixPath(path)
    listed = system.get_file_info(fs.FileSelector(path, recursive=True))
    found = [_input(one, folder) for one in listed if one.is_file and not is_hidden(one.path, folder)]
    if not found:
        raise InputInvalid(f"{path} has no file that ends with {', '.join(SUFFIXES)}.")
    names = [one.name for one in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputInvalid(f"{path} has two files named {min(twice)}, whose predictions would have one name.")
    return sorted(found)


def is_hidden(path: str, folder: PurePosixPath) -> bool:
    """Return whether a file, or a folder that it is in, has the name of a hidden or temporary one."""
    return any(part.startswith(HIDDEN) for part in PurePosixPath(path).relative_to(folder).parts)


def hidden(address: str) -> list[str]:
    """Return the hidden and temporary files below an address, which are not scored."""
    system, path = located(address)
    if system.get_file_info(path).type != fs.FileType.Directory:
        return []
    listed = system.get_file_info(fs.FileSelector(path, recursive=True))
    return sorted(one.path for one in listed if one.is_file and is_hidden(one.path, PurePosixPath(path)))


def _input(info: fs.FileInfo, folder: PurePosixPath) -> Input:
    suffix = next((one for one in SUFFIXES if info.path.lower().endswith(one)), None)
    if suffix is None:
        raise InputInvalid(f"{info.path} does not end with {', '.join(SUFFIXES)}: move it out of the input.")
    name = str(PurePosixPath(info.path).relative_to(folder))[: -len(suffix)]
    return Input(name, info.path, info.size, info.mtime.isoformat() if info.mtime else "")


def is_parquet(path: str) -> bool:
    """Return whether a file is Parquet, which can be read in parts."""
    return path.lower().endswith(".parquet")


def is_csv(path: str) -> bool:
    """Return whether a file is CSV, whose cells are text."""
    return path.lower().endswith((".csv", ".csv.gz"))


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Raise InputInvalid for what Arrow's readers raise for a damaged file."""
    try:
        yield
    except (pa.ArrowException, OSError) as err:
        reason = str(err).splitlines()[0].rstrip(". ")
        raise InputInvalid(
            f"{path} cannot be read: {reason}. Complete parts are kept: write the file again, and repeat the command."
        ) from err


def blocks(system: fs.FileSystem, path: str, skipped: int = 0) -> Iterator[pa.Table]:
    """Yield the rows of a file in blocks of `BLOCK_ROWS`, the last one smaller, from row `skipped` on.

    Whole row groups of Parquet that are skipped are not decoded.
    """
    with reading(path), system.open_input_file(path) as file:
        if is_parquet(path):
            parts = _parquet(file, skipped)
        else:
            parts = _skipped(_csv(system, path) if is_csv(path) else _arrow(file, path), skipped)
        for block in _resized(parts):
            _check_names(block.schema.names, path)
            yield block


def _check_names(names: list[str], path: str) -> None:
    """Raise InputInvalid for a duplicate column name, or a name of an output column."""
    for name in names:
        if names.count(name) > 1:
            raise InputInvalid(f"{path} has two columns named {name}: rename one.")
        if name in ADDED_COLUMNS:
            raise InputInvalid(f"{path} has a column named {name}, as the output has: rename it.")


def count(address: str) -> int | None:
    """Return the rows of the input files at an address, None if not all are Parquet, whose footers have the number."""
    system, path = located(address)
    rows = 0
    for one in inputs(system, path):
        if not is_parquet(one.path):
            return None
        with reading(one.path), system.open_input_file(one.path) as opened:
            rows += pq.read_metadata(opened).num_rows
    return rows


def _parquet(file: Any, skipped: int) -> Iterator[pa.RecordBatch]:
    opened = pq.ParquetFile(file)
    groups = list(range(opened.num_row_groups))
    while groups and opened.metadata.row_group(groups[0]).num_rows <= skipped:
        skipped -= opened.metadata.row_group(groups.pop(0)).num_rows
    # Arrow's threads would take the cores from the processes that predict, and are slower for blocks of this size.
    return _skipped(opened.iter_batches(BLOCK_ROWS, row_groups=groups, use_threads=False), skipped)


def _csv(system: fs.FileSystem, path: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of CSV as text; only an empty cell without quotes is missing."""
    open_file = partial(system.open_input_stream, path, compression="gzip" if path.lower().endswith(".gz") else None)
    with open_file() as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise InputInvalid(f"{path} is UTF-16, not UTF-8: convert it, for example by `iconv -f utf-16 -t utf-8`.")
    with open_file() as file:
        names = csv.open_csv(file).schema.names
    options = csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    with open_file() as file:
        yield from csv.open_csv(file, convert_options=options)


def _arrow(file: Any, path: str) -> Iterator[pa.RecordBatch]:
    if path.lower().endswith(STREAMED):
        yield from pa.ipc.open_stream(file)
    else:
        opened = pa.ipc.open_file(file)
        for i in range(opened.num_record_batches):
            yield opened.get_batch(i)


def _skipped(parts: Iterator[pa.RecordBatch], skipped: int) -> Iterator[pa.RecordBatch]:
    for part in parts:
        if skipped < part.num_rows:
            yield part.slice(skipped)
        skipped = max(0, skipped - part.num_rows)


def _resized(parts: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Yield the rows in blocks; their columns are copied only if a block has many parts."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for part in parts:
        waiting.append(part)
        rows += part.num_rows
        while rows >= BLOCK_ROWS:
            whole = pa.Table.from_batches(waiting)
            block = whole.slice(0, BLOCK_ROWS)
            yield block if len(waiting) <= MOST_PARTS else block.combine_chunks()
            waiting, rows = whole.slice(BLOCK_ROWS).to_batches(), rows - BLOCK_ROWS
    if rows:
        yield pa.Table.from_batches(waiting).combine_chunks()
