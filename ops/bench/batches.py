"""`on-time bench batches`: rows per second of each format over HTTP, of Pydantic alone and of `Booster.predict` alone.

The service runs on one core, with and without its journal, and wrk on another with two connections, so that the service
never waits for a batch; all are measured in turn in each round.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightgbm
import pyarrow as pa
from pydantic import TypeAdapter
from tabulate import tabulate

from app.api.edge import MAX_BODIES
from app.columns.batches import COLUMNS
from app.columns.stream import MEDIA_TYPE
from app.interface import ROWS, Request, columns, compute
from app.model import bundle as model
from ops.bench.serving import CLIENT_CORE, SCRIPT, Server, contestants, require
from stages.files import BUNDLE_DIR, write_json

OUT_FILE = Path("build/bench/batches.json")
PATH = "/predict/batch"
JSON = "application/json"
FORMATS = ("JSON", "JSON by columns", "Arrow")
CONNECTIONS = 2


def encoded(rows: list[dict[str, Any]]) -> dict[str, tuple[str, bytes]]:
    """Return the media type and the body of a batch in each format."""
    table = pa.Table.from_pylist([Request.model_validate(row).model_dump() for row in rows])
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    lists = {name: [row.get(name) for row in rows] for name in rows[0]}
    return {
        "JSON": (JSON, json.dumps({ROWS: rows}).encode()),
        "JSON by columns": (JSON, json.dumps({COLUMNS: lists}).encode()),
        "Arrow": (MEDIA_TYPE, sink.getvalue()),
    }


def largest(rows: list[dict[str, Any]], name: str) -> tuple[str, bytes, int]:
    """Return a batch of all rows, or of as many halves as the service reads at once, and the number of its rows."""
    kind, body = encoded(rows)[name]
    return (kind, body, len(rows)) if len(body) <= MAX_BODIES[PATH] else largest(rows[: len(rows) // 2], name)


def measure(server: Server, sizes: Sequence[int], seconds: int, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Return, by size and contestant, rows per second, and the share of `Booster.predict`: medians over the rounds."""
    bundle = model.load(BUNDLE_DIR / model.MODEL_FILE, BUNDLE_DIR / model.MANIFEST_FILE)
    golden = [item["request"] for item in bundle.manifest["golden"]]
    booster, reader = lightgbm.Booster(model_file=BUNDLE_DIR / model.MODEL_FILE), TypeAdapter(list[Request])
    table = []
    for size in sizes:
        rows = (golden * (size // len(golden) + 1))[:size]
        text = json.dumps(rows).encode()
        features = compute(columns(reader.validate_json(text)), bundle.lookups)
        alone: dict[str, Callable[[], Any]] = {
            "Booster.predict": partial(booster.predict, features, num_threads=1),
            "Pydantic alone": partial(reader.validate_json, text),
        }
        calls: dict[str, Callable[[], float]] = {
            name: partial(_per_second, call, size, seconds) for name, call in alone.items()
        }
        calls |= {name: partial(_served, server, largest(rows, name), seconds, folder) for name in FORMATS}
        runs = [{name: call() for name, call in calls.items()} for _ in range(rounds)]
        for name in calls:
            share = statistics.median(run[name] / run["Booster.predict"] for run in runs)
            speed = statistics.median(run[name] for run in runs)
            table.append({"rows": size, "name": name, "rows/s": speed, "of Booster.predict": share})
    return table


def _served(server: Server, batch: tuple[str, bytes, int], seconds: int, folder: Path) -> float:
    """Return the rows per second that the service predicts in batches of this one; exit if one fails."""
    kind, body, rows = batch
    script, file = folder / "batch.lua", folder / "batch"
    file.write_bytes(body)
    script.write_text(SCRIPT.format(body=file, kind=kind))
    found = server.load(CONNECTIONS, seconds, script, PATH)
    if found["errors"]:
        sys.exit(f"error: {found['errors']:.0f} batches of {rows} rows failed ({kind}).")
    return rows * found["rps"]


def _per_second(call: Callable[[], Any], rows: int, seconds: int) -> float:
    call()
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        call()
        calls += 1
    return rows * calls / (time.perf_counter() - started)


def run(seconds: int, rounds: int, sizes: Sequence[int]) -> None:
    """Measure, print a table and write build/bench/batches.json."""
    require()
    os.sched_setaffinity(0, {CLIENT_CORE})
    table: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, *services, _ = contestants(folder)
        for service in services:
            with service.running() as server:
                found = measure(server, sizes, seconds, rounds, folder)
                print(f"{service.name}:\n{tabulate(found, headers='keys', floatfmt=('', '', '.0f', '.2f'))}")
                print(f"{server.resident_mb():.0f} MB resident\n", flush=True)
                table += [{"service": service.name} | row for row in found]
    OUT_FILE.parent.mkdir(parents=True, exist_ok=True)
    write_json(OUT_FILE, {"table": table})
