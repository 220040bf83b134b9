"""Read files of new rows as they come: CSV, gzipped CSV or Parquet, one table each.

A file that cannot be read whole is refused with the place of the damage; a value of another kind than the column's
marks its row.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa

from stages.base.errors import DataInvalid
from stages.interface import TABLES
from stages.problem_kit.columns import UTC, kind

FORMS = (".csv", ".csv.gz", ".parquet")


@dataclass(frozen=True)
class Incoming:
    """The rows of a file, numbered from 0."""

    name: str
    table: str
    raw: pd.DataFrame
    """As they are in the file; cells of CSV are text."""
    typed: pd.DataFrame
    """Those whose values have the columns' types."""
    mistyped: pd.Series
    """The column `table.column` of the first value of another kind, for the other rows."""


def table_of(path: Path) -> str:
    """Return the table that the name of a file begins with; raise DataInvalid for another name or form."""
    found = max((table for table in TABLES if path.name.lower().startswith(table.lower())), key=len, default="")
    if not found or not path.name.lower().endswith(FORMS):
        raise DataInvalid(
            f"{path}: the name must begin with a table ({', '.join(TABLES)}) and end in {', '.join(FORMS[:-1])} or "
            f"{FORMS[-1]}. Rename the file."
        )
    return found


def read(path: Path) -> Incoming:
    """Return the rows of a file; raise DataInvalid if it is damaged, empty or has other columns than its table."""
    table = table_of(path)
    raw = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    lacking = [name for name in TABLES[table] if name not in raw]
    unknown = [str(name) for name in raw if name not in TABLES[table]]
    wrong = []
    if lacking:
        wrong.append(f"lacks {', '.join(lacking)}")
    if unknown:
        wrong.append(f"has {', '.join(unknown)} besides")
    if wrong:
        raise DataInvalid(f"{path} does not have the columns of {table}: it {' and '.join(wrong)}.")
    if raw.empty:
        raise DataInvalid(f"{path} has a header and no rows.")
    typed, mistyped = convert(raw[list(TABLES[table])], table)
    return Incoming(path.name, table, raw[list(TABLES[table])], typed, mistyped)


def convert(raw: pd.DataFrame, table: str) -> tuple[pd.DataFrame, pd.Series]:
    """Return the rows with the types of the columns, and for the others the column that has another."""
    columns = {}
    mistyped = pd.Series(None, index=raw.index, dtype=object)
    for name, described in TABLES[table].items():
        values, wanted = raw[name], kind(described)
        if wanted == "text":
            columns[name] = values.astype("str")
            continue
        if wanted == "time":
            form = "ISO8601" if pd.api.types.is_string_dtype(values) else None
            found = pd.to_datetime(values, utc=True, errors="coerce", format=form).astype(UTC)
        else:
            found = pd.to_numeric(values, errors="coerce").astype("float64")
        wrong = found.isna() & values.notna()
        if wanted == "integer":
            wrong |= found.isna() | (found % 1 != 0)
        mistyped = mistyped.mask(mistyped.isna() & wrong, f"{table}.{name}")
        columns[name] = found
    typed = pd.DataFrame(columns)[mistyped.isna()]
    integers = {name: "int64" for name, described in TABLES[table].items() if kind(described) == "integer"}
    return typed.astype(integers), mistyped.dropna()


def _parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path).reset_index(drop=True)
    except (pa.ArrowException, OSError, EOFError) as err:
        raise DataInvalid(
            f"{path} is not a complete Parquet file: {str(err).splitlines()[0]}. Fetch it again."
        ) from err


def _csv(path: Path) -> pd.DataFrame:
    text = _text(path)
    rows = csv.reader(io.StringIO(text, newline=""))
    header = next(rows)
    try:
        for row in rows:
            if row and len(row) != len(header):
                raise DataInvalid(
                    f"{path}, line {rows.line_num} has {len(row)} fields, the header has {len(header)}: the file is "
                    "damaged or cut off. Fetch it again."
                )
    except csv.Error as err:
        raise DataInvalid(f"{path}, line {rows.line_num}: {err}. Fetch the file again.") from err
    if not text.endswith("\n"):
        raise DataInvalid(
            f"{path} ends within line {rows.line_num}: it was cut off. Fetch it again; if the line is whole, end it by "
            f"`echo >> {path.name}`."
        )
    return pd.read_csv(io.StringIO(text), dtype=str)


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        text = content.decode("utf-8-sig")
    except (EOFError, gzip.BadGzipFile, zlib.error) as err:
        raise DataInvalid(f"{path} is cut off or damaged: {err}. Fetch it again.") from err
    except UnicodeDecodeError as err:
        line = content[: err.start].count(b"\n") + 1
        raise DataInvalid(
            f"{path}, line {line}: byte 0x{content[err.start]:02x} is not UTF-8. Find out the file's encoding and "
            "convert it, for example by `iconv -f latin1 -t utf-8`."
        ) from err
    if not text.strip():
        raise DataInvalid(f"{path} is empty. Fetch it again.")
    return text
