"""`on-time bench scale`: time and memory of each stage on 1, 3, 10 and 30 years of rows."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from app.errors import OnTimeError
from app.problem_kit.features import day_number
from ops.studies.scale import years
from ops.studies.speed import memory
from stages import params
from stages.base.git import git
from stages.base.paths import write_json
from stages.params import Params
from stages.problem_kit.params import PARAMS_FILE
from stages.problem_kit.rows import months_of
from stages.tables.fetch import DATA_DIR

OUT_FILE = Path("build/bench/scale.json")
STAGES = ("validate", "featurize", "train", "evaluate")
"""Those whose cost depends on the rows, in the order of dvc.yaml."""
MODES: dict[str, dict[str, Any]] = {
    "memory": {"partition": "all", "engine": "local"},
    "month": {"partition": "month", "engine": "local"},
    "ray": {"partition": "month", "engine": "ray"},
}
"""The keys of params.yaml that each mode changes."""
CLOCK = """
import runpy, sys
from datetime import datetime
from app.problem import request

class Then(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(sys.argv[2])

request.datetime = Then
runpy.run_module(f"stages.{sys.argv[1]}", run_name="__main__", alter_sys=True)
"""
"""Runs a stage on another day: no request of today may be more than a year ahead, but the generated years are."""
OWN = ("MLFLOW_", "ONTIME_")
"""Variables of the caller that would lead a clone to the caller's own services."""


class StageFailed(OnTimeError):
    """A stage failed while it was measured."""


def measure_scale(factors: Sequence[int], modes: Sequence[str], keep: Path | None) -> None:
    """Measure every mode on every number of years; print the table after each, and write it to OUT_FILE."""
    table: list[dict[str, Any]] = []
    failed = []
    with tempfile.TemporaryDirectory(prefix="on-time-scale-") as scratch:
        folder = (keep or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for factor in factors:
            for mode in modes:
                row: dict[str, Any] = {"factor": factor, "mode": mode}
                table.append(row)
                try:
                    measure_stages(folder, row)
                except StageFailed as err:
                    failed.append(str(err))
                    print(err, file=sys.stderr)
                add_ratio(table)
                write_json(OUT_FILE, table)
                names = dict.fromkeys(name for each in table for name in each)
                print("\n" + tabulate([[name, *(each.get(name) for each in table)] for name in names], floatfmt=",.1f"))
    if failed:
        raise StageFailed(f"{len(failed)} of {len(table)} measurements failed: {'; '.join(failed)}")


def measure_stages(folder: Path, row: dict[str, Any]) -> None:
    """Run the stages in a clone of the commit with a row's years and mode, and add the measurements to the row."""
    years.make_years(folder / "years", row["factor"] - 1, DATA_DIR)
    with tempfile.TemporaryDirectory(prefix="clone-", dir=folder) as name:
        clone = Path(name)
        git("clone", "--quiet", ".", name)
        row["rows"] = years.install_years(folder / "years", row["factor"], DATA_DIR, clone, MODES[row["mode"]])
        p = params.load(clone / PARAMS_FILE)
        row["passes"] = passes(p)
        label = f"{row['factor']} x {row['mode']}"
        for stage in STAGES:
            row |= execute(stage, clone, str(p.problem.last_date), label)
            print(f"{label}: {stage} {row[f'{stage} s']:.1f} s, {row[f'{stage} MB']:,} MB", file=sys.stderr, flush=True)
        row["build MB"] = sum(path.stat().st_size for path in (clone / "build").rglob("*") if path.is_file()) // 10**6
        row["µs/row"] = sum(row[f"{stage} CPU"] for stage in STAGES) / row["rows"] * 1e6


def execute(stage: str, clone: Path, day: str, label: str) -> dict[str, Any]:
    """Run a stage in a clone on a day, with an MLflow of its own.

    Returns wall time and CPU time of all its processes, s, and their peak memory, MB.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    command, log = [sys.executable, "-c", CLOCK, stage, day], clone / "stage.log"
    started, used = time.perf_counter(), _children_cpu_seconds()
    with log.open("w", encoding="utf-8") as file:
        with subprocess.Popen(command, cwd=clone, env=env, stdout=file, stderr=file, text=True) as process:
            peak = memory.peak(process)
    seconds = time.perf_counter() - started
    if process.returncode:
        last = " ".join(log.read_text(encoding="utf-8").strip().splitlines()[-1:])
        reason = f"{label}: {stage} ended with {process.returncode} after {seconds:.0f} s, {peak / 10**6:,.0f} MB"
        raise StageFailed(f"{reason}: {last or 'it printed nothing'}")
    return {f"{stage} s": seconds, f"{stage} CPU": _children_cpu_seconds() - used, f"{stage} MB": peak // 10**6}


def _children_cpu_seconds() -> float:
    """Return the CPU seconds of all children that have ended; other programs change them less than wall time."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def passes(p: Params) -> float:
    """Return how many times the fits of `train`, folds and final model, go through a training row on average."""
    first, last = p.train_period
    month = months_of(np.arange(day_number(first), day_number(last) + 1))
    folds = p.train.folds(np.unique(month).tolist())
    return 1 + float(sum(np.mean(month < fold) for fold in folds))


def add_ratio(table: list[dict[str, Any]]) -> None:
    """Add to the last row its CPU time per row as a multiple of that of factor 1 in the same mode."""
    row = table[-1]
    for base in table:
        if base["factor"] == 1 and base["mode"] == row["mode"] and "µs/row" in base and "µs/row" in row:
            row["ratio"] = row["µs/row"] / base["µs/row"]
