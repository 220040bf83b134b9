"""Scoring of files, by a process for each core; a call continues where an earlier one ended."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from typing import NamedTuple

import pyarrow as pa

from app.errors import OnTimeError
from ops.scoring.files import Input, InputInvalid, blocks, inputs, is_csv, located
from ops.scoring.output import PART_ROWS, Job, Part, Target, Writer
from ops.scoring.predict import FIELDS, BlockInvalid, ScoredBlock, Worker, stream

AHEAD = 3
"""Blocks for each process that are read ahead."""


class Total(NamedTuple):
    """What a call did; `known` are the rows of parts that were complete before."""

    rows: int = 0
    rejected: int = 0
    known: int = 0
    seconds: float = 0.0


class Report:
    """Callbacks of the progress; by default they do nothing."""

    def rows(self, count: int) -> None:
        """Rows have predictions, from this call or an earlier one."""

    def part(self, part: Part, rate: float) -> None:
        """A new part is complete; `rate` is in rows per second."""


def score_files(job: Job, threshold: float, pool: Executor, report: Report = Report()) -> Total:
    """Score all input files in the processes of a pool; raise InputInvalid, OutputInvalid or TooManyRejected.

    Parts that an earlier call completed are kept.
    """
    started, total = time.monotonic(), Total()
    system, path = located(job.source)
    target = Target(job, threshold)
    for file in inputs(system, path):
        known = target.known(file)
        before = sum(part.rows for part in known)
        total = total._replace(known=total.known + before)
        report.rows(before)
        if known and known[-1].last:
            continue
        read = blocks(system, file.path, len(known) * PART_ROWS)
        for part, seconds in parts(job, target, pool, read, file, len(known), report=report):
            total = total._replace(rows=total.rows + part.rows, rejected=total.rejected + part.rejected)
            report.part(part, part.rows / seconds)
    return total._replace(seconds=time.monotonic() - started)


@contextmanager
def processes(count: int) -> Iterator[Executor]:
    """Yield a pool of processes that predict, one thread each, which begin to import at once."""
    os.environ["OMP_NUM_THREADS"] = "1"
    pool = ProcessPoolExecutor(count, get_context("spawn"))
    try:
        for _ in range(count):
            pool.submit(Worker.ready)
        yield pool
    except BrokenProcessPool as err:
        raise OnTimeError(
            "a process that predicts has ended, by lack of memory or a signal. Complete parts are kept: repeat the "
            "command, with fewer --workers."
        ) from err
    finally:
        pool.shutdown(cancel_futures=True)


def parts(
    job: Job,
    target: Target,
    pool: Executor,
    read: Iterator[pa.Table],
    file: Input,
    number: int,
    last: bool = True,
    report: Report = Report(),
) -> Iterator[tuple[Part, float]]:
    """Write the parts of a file from a number on; yield the receipt of each, and the seconds that it took.

    `read` are the blocks from that part on, to the end of the file if `last`, else to the end of a part.
    """
    results = _results(job, pool, read, file)
    following = next(results, None)
    while following or not number:
        started = time.monotonic()
        writer = Writer(target, file, number)
        with writer.open():
            while following and writer.rows < PART_ROWS:
                writer.add(*following)
                report.rows(following[0].num_rows)
                following = next(results, None)
        yield writer.complete(last=last and following is None), time.monotonic() - started
        number += 1


def _results(job: Job, pool: Executor, read: Iterator[pa.Table], file: Input) -> Iterator[tuple[pa.Table, ScoredBlock]]:
    """Yield each block with its predictions, in order, while the next ones are read and predicted."""
    waiting: deque[tuple[pa.Table, Future[ScoredBlock]]] = deque()
    most = int(job.tolerated * PART_ROWS) + 1

    def submit(count: int) -> None:
        for block in islice(read, count):
            fields = [name for name in block.schema.names if name in FIELDS]
            given = stream(block.select(fields))
            scored = pool.submit(Worker.score, job.folder, given, block.num_rows, most, is_csv(file.path))
            waiting.append((block, scored))

    submit(AHEAD * job.workers)
    while waiting:
        block, future = waiting.popleft()
        try:
            scored = future.result()
        except BlockInvalid as err:
            raise InputInvalid(f"{file.path} does not have the columns of a request: {err}.") from err
        submit(1)
        yield block, scored
