"""`on-time bench scoring`: `model score` beside `Booster.predict` on all cores, and its memory, by the number of rows.

Each input file repeats the rows of the test period; a measurement of more rows has more files.
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

from app import cpus
from app.errors import OnTimeError
from app.interface import Request
from app.model import bundles
from app.problem_kit.features import Floats
from ops.monitoring import replay
from ops.studies.speed import memory
from stages import params
from stages.base.paths import BUNDLE_DIR, write_json
from stages.features import feature_files

OUT_FILE = Path("build/bench/scoring.json")
REPEATED = 6
"""Times that a file holds the rows of the test period: about as many as a year has."""
DONE = re.compile(r"^[\d,]+ .* in [\d.]+ s, ([\d,]+) a second", re.MULTILINE)


class ScoringFailed(OnTimeError):
    """`model score` failed while it was measured."""


def measure_scoring(times: Sequence[int], rounds: int) -> None:
    """Measure, print the table, and write it to OUT_FILE."""
    features = np.tile(feature_files.matrix(feature_files.read("test")), (REPEATED, 1))
    days = replay.days(*params.load().test_period)
    requests = [Request.model_validate(body).model_dump() for day in days for body in day.requests]
    table = []
    with tempfile.TemporaryDirectory(prefix="on-time-scoring-") as name:
        folder = Path(name)
        parquet.write_table(pa.concat_tables([pa.Table.from_pylist(requests)] * REPEATED), folder / "rows.parquet")
        for files in times:
            alone, scored, peaks = [_predict(features)], list[float](), list[int]()
            for _ in range(rounds):  # in turn, as the speed of a shared machine changes
                speed, peak = _score(folder, files)
                scored.append(speed)
                peaks.append(peak)
                alone.append(_predict(features))
            rate, booster = statistics.median(scored), statistics.median(alone)
            row: dict[str, Any] = {"files": files, "rows": files * REPEATED * len(requests)}
            row |= {"rows_per_second": round(rate), "booster": round(booster), "share": round(rate / booster, 2)}
            table.append(row | {"peak_mb": max(peaks) // 10**6})
    write_json(OUT_FILE, table)
    print(f"{cpus.available()} cores; medians of {rounds}; memory of all processes (PSS) at its peak")
    print(tabulate(table, headers="keys", intfmt=","))


def _predict(features: Floats) -> float:
    """Return the rows per second of `Booster.predict` on all cores."""
    booster = lightgbm.Booster(model_file=BUNDLE_DIR / bundles.MODEL_FILE)
    started = time.perf_counter()
    booster.predict(features, num_threads=cpus.available())
    return len(features) / (time.perf_counter() - started)


def _score(folder: Path, files: int) -> tuple[float, int]:
    """Score the file this many times with the production version; return rows per second and peak memory, bytes."""
    source, target = folder / "in", folder / "out"
    for path in (source, target):
        shutil.rmtree(path, ignore_errors=True)
    source.mkdir()
    for i in range(files):
        (source / f"{i:03d}.parquet").hardlink_to(folder / "rows.parquet")
    command: list[Any] = [sys.executable, "-m", "ops.cli", "model", "score", source, target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        peak = memory.peak(process)
        text = process.stdout.read() if process.stdout else ""
    done = DONE.search(text)
    if done is None:
        raise ScoringFailed(f"`on-time model score` ended with {process.returncode}; run it by hand to see why.")
    return float(done[1].replace(",", "")), peak
