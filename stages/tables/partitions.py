"""The raw tables by month: the rows in memory at once, and the rows of the days around them.

A table with days (`stages.problem.days`) has a file per partition, in the order of the months in the data; each other
table has one file. Rows without a valid day, or of a month that the period lacks, are in the first partition.

Memory then depends on the largest month and not on the number of years. A month is the unit, because folds and reports
are by month, and because a feature or a rule looks back some days only, which the neighbours supply.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from stages import interface
from stages.base.errors import DataInvalid
from stages.interface import KEYS, TABLES
from stages.problem_kit.params import Coverage, Partitioning
from stages.problem_kit.rules import Tables
from stages.tables.read import absorb, chunks, empty

TABLES_DIR = Path("build/tables")
WHOLE = "all"
DAY = timedelta(days=1)
KEPT = 3
"""Partitions of a table that stay in memory: one, and its neighbours."""

Covered = TypeVar("Covered", bound=Coverage)


@dataclass(frozen=True)
class Partition:
    """Days whose rows are read together, both ends included; `place` is their position in the order of the rows."""

    place: int
    name: str
    first: date
    last: date

    @property
    def file(self) -> str:
        """Return the name of its files; sorted by name, they are in the order of the rows."""
        return f"{self.place:04d}-{self.name}.parquet"

    def only(self, p: Covered) -> Covered:
        """Return parameters of the same period; all other days are gaps."""
        around = [(p.first_date, self.first - DAY), (self.last + DAY, p.last_date)]
        return p.model_copy(update={"gaps": [*p.gaps, *(gap for gap in around if gap[0] <= gap[1])]})


class Store:
    """The tables of a period, read by partition; frames are shared, and must not be changed."""

    def __init__(
        self,
        partitions: Sequence[Partition],
        undated: Tables,
        read: Callable[[str, Partition], pd.DataFrame],
        p: interface.Params,
    ) -> None:
        self.partitions = partitions
        self.undated = undated
        self.dated = [table for table in TABLES if table not in undated]
        self._read = lru_cache(KEPT * len(self.dated))(read)
        self._p = p

    def files(self, table: str) -> Sequence[Partition]:
        """Return the partitions of a table: one for a table without days."""
        return [_whole(self._p)] if table in self.undated else self.partitions

    def own(self, partition: Partition) -> Tables:
        """Return the tables with the rows of a partition; tables without days are whole."""
        return {t: self.undated[t] if t in self.undated else self._read(t, partition) for t in TABLES}

    def around(self, partition: Partition, days: int) -> Tables:
        """Like `own`, with its index, plus the rows of `days` days before and after the partition."""
        low, high = partition.first - days * DAY, partition.last + days * DAY
        near = [other for other in self.partitions if other.first <= high and other.last >= low]
        near.sort(key=attrgetter("first"))
        return self.own(partition) | {table: self._joined(table, partition, near, low, high) for table in self.dated}

    def each(self, days: int) -> Iterator[tuple[Partition, Tables, Tables]]:
        """Yield each partition with `own` and `around`."""
        for partition in self.partitions:
            yield partition, self.own(partition), self.around(partition, days)

    def whole(self) -> Tables:
        """Return the whole tables."""
        if len(self.partitions) == 1:
            return self.own(self.partitions[0])
        parts = {table: [self._read(table, partition) for partition in self.partitions] for table in self.dated}
        return self.undated | {table: pd.concat(frames, ignore_index=True) for table, frames in parts.items()}

    def _joined(self, table: str, own: Partition, near: list[Partition], low: date, high: date) -> pd.DataFrame:
        if near == [own]:
            return self._read(table, own)
        frames = []
        before = 0
        for other in near:
            frame = self._read(table, other)
            if other != own:
                days = interface.days(table, frame, self._p)
                assert days is not None
                frame = frame[days.between(pd.Timestamp(low), pd.Timestamp(high)).to_numpy()]
            if other.first < own.first:
                before += len(frame)
            frames.append(frame)
        joined = pd.concat(frames, ignore_index=True)
        return joined.set_axis(pd.RangeIndex(-before, len(joined) - before))


def split(tables: Tables, p: interface.Params, by: Partitioning = "all") -> Store:
    """Return tables that are in memory by partition."""
    undated = {table: frame for table, frame in tables.items() if not _dated(table, p)}
    parts = {table: dict(_groups(table, tables[table], p, by)) for table in tables if table not in undated}
    partitions = _partitions([name for names in parts.values() for name in names], p, by)

    def read(table: str, partition: Partition) -> pd.DataFrame:
        return parts[table].get(partition.name, tables[table].iloc[:0]).reset_index(drop=True)

    return Store(partitions, undated, read, p)


def write(folder: Path, p: interface.Params, by: Partitioning) -> Store:
    """Write the raw tables of a folder, with their additions, to build/tables; at most CHUNK_ROWS are in memory."""
    shutil.rmtree(TABLES_DIR, ignore_errors=True)
    names: list[str] = []
    for table in TABLES:
        for number, (source, frame) in enumerate(chunks(folder, table)):
            for name, rows in _groups(table, frame, p, by if _dated(table, p) else "all"):
                scratch = TABLES_DIR / table / name
                scratch.mkdir(parents=True, exist_ok=True)
                rows.to_parquet(scratch / f"{source:06d}-{number:06d}.parquet", index=False)
                if _dated(table, p):
                    names.append(name)
    partitions = _partitions(names, p, by)
    for table in TABLES:
        for partition in partitions if _dated(table, p) else [_whole(p)]:
            scratch = TABLES_DIR / table / partition.name
            rewrite(table, partition, _gathered(table, scratch))
            shutil.rmtree(scratch, ignore_errors=True)
    return written(p)


def written(p: interface.Params) -> Store:
    """Return the tables that `write` wrote; raise DataInvalid if they do not have the whole period."""
    names = {table: sorted(path.stem for path in (TABLES_DIR / table).glob("*.parquet")) for table in TABLES}
    dated = [table for table in TABLES if _dated(table, p)]
    known = [name.partition("-")[2] for name in names[dated[0]]] if dated else [WHOLE]
    complete = all(names.values()) and len({tuple(names[table]) for table in dated}) <= 1
    if not complete or not (known == [WHOLE] or _spans(p).keys() <= set(known)):
        raise DataInvalid(f"{TABLES_DIR} is not complete. `dvc repro validate` makes it.")
    undated = {table: pd.read_parquet(TABLES_DIR / table / _whole(p).file) for table in TABLES if table not in dated}

    def read(table: str, partition: Partition) -> pd.DataFrame:
        return pd.read_parquet(TABLES_DIR / table / partition.file)

    return Store(_partitions(known, p, "all" if known == [WHOLE] else "month"), undated, read, p)


def rewrite(table: str, partition: Partition, frame: pd.DataFrame) -> None:
    """Overwrite the rows of a table in one partition."""
    frame.to_parquet(TABLES_DIR / table / partition.file, index=False)


def _dated(table: str, p: interface.Params) -> bool:
    return interface.days(table, empty(table), p) is not None


def _whole(p: Coverage) -> Partition:
    return Partition(0, WHOLE, p.first_date, p.last_date)


def _partitions(names: Sequence[str], p: Coverage, by: Partitioning) -> list[Partition]:
    """Return the partitions of these names, each once and in order, then the other months of the period."""
    if by == "all":
        return [_whole(p)]
    spans = _spans(p)
    return [Partition(i, name, *spans[name]) for i, name in enumerate(dict.fromkeys([*names, *spans]))]


def _spans(p: Coverage) -> dict[str, tuple[date, date]]:
    """Return the first and the last covered day of each month of the period."""
    days: dict[str, list[date]] = {}
    for day in p.days():
        days.setdefault(f"{day:%Y-%m}", []).append(day)
    return {name: (covered[0], covered[-1]) for name, covered in days.items()}


def _groups(
    table: str, frame: pd.DataFrame, p: interface.Params, by: Partitioning
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each partition, by its name."""
    if by == "all":
        yield WHOLE, frame
        return
    spans = list(_spans(p))
    months = np.full(len(frame), spans[0])
    if set(TABLES[table]) <= set(frame):
        days = interface.days(table, frame, p)
        assert days is not None
        months = days.to_numpy("datetime64[M]").astype(str)
    names = np.where(np.isin(months, spans), months, spans[0])
    for name, rows in frame.groupby(names, sort=False):
        yield str(name), rows


def _gathered(table: str, scratch: Path) -> pd.DataFrame:
    """Return the rows of a partition; rows of a later source replace rows with the same key."""
    sources: dict[str, list[pd.DataFrame]] = {}
    for path in sorted(scratch.glob("*.parquet")):
        sources.setdefault(path.name.partition("-")[0], []).append(pd.read_parquet(path))
    frames = [pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0] for parts in sources.values()]
    if len(frames) > 1:
        return absorb(frames, KEYS[table])[0]
    return frames[0] if frames else empty(table)
