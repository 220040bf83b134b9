"""`on-time bench scoring`: `model score` beside `Booster.predict` on all cores, and its memory, by the number of rows.

The rows are those of the test period, several times in each input file; a measurement of more rows has more files.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
from pyarrow import parquet
from tabulate import tabulate

from app.api import cpus
from app.errors import OnTimeError
from app.features import Floats
from app.interface import Request
from app.model import bundle as model
from ops.bench import memory
from ops.monitoring import replay
from stages import frames, params
from stages.files import BUNDLE_DIR, write_json
from stages.frames import matrix

OUT_FILE = Path("build/bench/scoring.json")
REPEATED = 6
"""Times that a file holds the rows of the test period: about as many as a year has."""
DONE = re.compile(r"^([\d,]+) .* in ([\d.]+) s, ([\d,]+) a second", re.MULTILINE)


class ScoringFailed(OnTimeError):
    """`model score` failed while it was measured."""


def run(times: Sequence[int], rounds: int) -> None:
    """Measure, print the table, and write it to OUT_FILE."""
    features = np.tile(_features(), (REPEATED, 1))
    with tempfile.TemporaryDirectory(prefix="on-time-scoring-") as scratch:
        folder = Path(scratch)
        rows = _write(folder / "rows.parquet")
        table = []
        for number in times:
            predicted, found = [_predict(features)], list[tuple[float, int]]()
            for _ in range(rounds):  # in turn, as the speed of a shared machine changes
                found.append(_score(folder, number))
                predicted.append(_predict(features))
            alone, rate = statistics.median(predicted), statistics.median(speed for speed, _ in found)
            facts = {"files": number, "rows": number * rows, "rows_per_second": round(rate), "booster": round(alone)}
            table.append(facts | {"share": round(rate / alone, 2), "peak_mb": max(peak for _, peak in found) // 10**6})
    write_json(OUT_FILE, table)
    print(f"{cpus.available()} cores; medians of {rounds}; memory of all processes (PSS) at its peak")
    print(tabulate(table, headers="keys", intfmt=","))


def _features() -> Floats:
    """Return the features of the test period."""
    return matrix(frames.read("test"))


def _write(file: Path) -> int:
    """Write the requests of the test period to a Parquet file, several times; return the number of rows."""
    days = replay.days(*params.load().test_period)
    rows = [Request.model_validate(body).model_dump() for day in days for body in day.requests]
    table = pa.Table.from_pylist(rows)
    parquet.write_table(pa.concat_tables([table] * REPEATED), file)
    return len(rows) * REPEATED


def _predict(features: Floats) -> float:
    """Return the rows per second of `Booster.predict` on all cores."""
    booster = lightgbm.Booster(model_file=BUNDLE_DIR / model.MODEL_FILE)
    started = time.perf_counter()
    booster.predict(features, num_threads=cpus.available())
    return len(features) / (time.perf_counter() - started)


def _score(folder: Path, number: int) -> tuple[float, int]:
    """Score so many files with the production version; return rows per second, and the peak of memory in bytes."""
    source, target = folder / "in", folder / "out"
    for path in (source, target):
        shutil.rmtree(path, ignore_errors=True)
    source.mkdir()
    for i in range(number):
        (source / f"{i:03d}.parquet").hardlink_to(folder / "rows.parquet")
    command: list[Any] = [sys.executable, "-m", "ops.cli", "model", "score", source, target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        peak = memory.peak(process)
        text = process.stdout.read() if process.stdout else ""
    if not (done := DONE.search(text)):
        raise ScoringFailed(f"`on-time model score` ended with {process.returncode}; run it by hand to see why.")
    return float(done[3].replace(",", "")), peak
