"""Scoring of files on Ray: a task for each part of a Parquet file, and for each whole file of another format.

Parts and receipts are byte-identical to the engine `local`; Ray retries a task whose process has ended.
"""

# pylint: disable=import-outside-toplevel # Ray is an extra

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
from pyarrow import fs

from ops.scoring.files import BLOCK_ROWS, Input, blocks, inputs, is_parquet, located, reading
from ops.scoring.output import PART_ROWS, Job, Part, Target
from ops.scoring.predict import Worker
from ops.scoring.score import Report, Total, parts
from stages.on_ray.cluster import cluster, results


class Item(NamedTuple):
    """What one task writes: the part `number` of a file, or, if it is `open`, that one and all that follow."""

    file: Input
    number: int
    last: bool
    open: bool


def score_on_ray(job: Job, threshold: float, report: Report = Report()) -> Total:
    """Score all input files as `ops.scoring.score.score_files` does, on a Ray cluster."""
    started, total = time.monotonic(), Total()
    system, path = located(job.source)
    target, items = Target(job, threshold), list[Item]()
    for file in inputs(system, path):
        known, missing = _items(target, system, file)
        before = sum(part.rows for part in known)
        total = total._replace(known=total.known + before)
        report.rows(before)
        items += missing
    if not items:
        return total._replace(seconds=time.monotonic() - started)
    with cluster(job.workers) as workers:
        import ray

        content = ray.put({path.name: path.read_bytes() for path in job.folder.iterdir()})
        task = partial(_task, items=items, job=job._replace(workers=1), threshold=threshold, content=content)
        for written in results(task, len(items), workers):
            for part, seconds in written:
                total = total._replace(rows=total.rows + part.rows, rejected=total.rejected + part.rejected)
                report.rows(part.rows)
                report.part(part, part.rows / seconds)
    return total._replace(seconds=time.monotonic() - started)


def _items(target: Target, system: fs.FileSystem, file: Input) -> tuple[list[Part], list[Item]]:
    """Return the complete parts of a file, and the missing items."""
    if not is_parquet(file.path):
        known = target.known(file)
        return known, [] if known and known[-1].last else [Item(file, len(known), last=True, open=True)]
    with reading(file.path), system.open_input_file(file.path) as opened:
        count = max(1, -(-pq.read_metadata(opened).num_rows // PART_ROWS))
    receipts = [target.receipt(file, number) for number in range(count)]
    missing = [number for number, part in enumerate(receipts) if part is None]
    return [part for part in receipts if part], [Item(file, i, last=i == count - 1, open=False) for i in missing]


def _task(number: int, items: list[Item], job: Job, threshold: float, content: Any) -> list[tuple[Part, float]]:
    """Write what one task writes, and return its receipts, each with its seconds."""
    import ray

    if Worker.bundle is None:
        with tempfile.TemporaryDirectory() as folder:
            for name, data in ray.get(content).items():
                (Path(folder) / name).write_bytes(data)
            Worker.start(Path(folder))
    file, place, last, is_open = items[number]
    system, _ = located(job.source)
    read = blocks(system, file.path, place * PART_ROWS)
    if not is_open:
        read = islice(read, PART_ROWS // BLOCK_ROWS)
    with ThreadPoolExecutor(1) as pool:
        return list(parts(job, Target(job, threshold), pool, read, file, place, last))
