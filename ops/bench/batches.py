"""`on-time bench batches`: rows per second of each format over HTTP, of Pydantic alone and of `Booster.predict` alone.

The service runs on one core, with and without its journal, and this process on another; all are measured in turn in
each round.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import statistics
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
from app.columns.rows import COLUMNS
from app.columns.stream import MEDIA_TYPE
from app.interface import ROWS, Request, columns, compute
from app.model import bundle as model
from ops.bench.serving import CLIENT_CORE, Server, contestants
from stages.files import BUNDLE_DIR, write_json

OUT_FILE = Path("build/bench/batches.json")
SIZES = (1, 100, 1000, 10_000)
PATH = "/predict/batch"
JSON = "application/json"


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


def parts(rows: list[dict[str, Any]], name: str) -> list[tuple[str, bytes]]:
    """Return the bodies of a batch in a format: several if it has more bytes than the service reads at once."""
    kind, body = encoded(rows)[name]
    if len(body) <= MAX_BODIES[PATH]:
        return [(kind, body)]
    half = len(rows) // 2
    return parts(rows[:half], name) + parts(rows[half:], name)


def send(connection: http.client.HTTPConnection, bodies: Sequence[tuple[str, bytes]]) -> None:
    """Send batches, one after another, and read the responses."""
    for kind, body in bodies:
        connection.request("POST", PATH, body, {"Content-Type": kind})
        response = connection.getresponse()
        content = response.read()
        assert response.status == 200, content[:500]


def measure(server: Server, sizes: Sequence[int], seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Return, by size and contestant, rows per second, and the share of `Booster.predict`: medians over the rounds."""
    bundle = model.load(BUNDLE_DIR / model.MODEL_FILE, BUNDLE_DIR / model.MANIFEST_FILE)
    golden = [item["request"] for item in bundle.manifest["golden"]]
    booster, reader = lightgbm.Booster(model_file=BUNDLE_DIR / model.MODEL_FILE), TypeAdapter(list[Request])
    connection, table = http.client.HTTPConnection("127.0.0.1", server.port), []
    for size in sizes:
        rows = (golden * (size // len(golden) + 1))[:size]
        text = json.dumps(rows).encode()
        features = compute(columns(reader.validate_json(text)), bundle.lookups)
        calls: dict[str, Callable[[], Any]] = {
            "Booster.predict": partial(booster.predict, features, num_threads=1),
            "Pydantic alone": partial(reader.validate_json, text),
        }
        calls |= {name: partial(send, connection, parts(rows, name)) for name in ("JSON", "JSON by columns", "Arrow")}
        runs = [{name: size * _per_second(call, seconds) for name, call in calls.items()} for _ in range(rounds)]
        for name in calls:
            share = statistics.median(run[name] / run["Booster.predict"] for run in runs)
            speed = statistics.median(run[name] for run in runs)
            table.append({"rows": size, "name": name, "rows/s": speed, "of Booster.predict": share})
    return table


def _per_second(call: Callable[[], Any], seconds: float) -> float:
    call()
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        call()
        calls += 1
    return calls / (time.perf_counter() - started)


def run(seconds: float, rounds: int, sizes: Sequence[int]) -> None:
    """Measure, print a table and write build/bench/batches.json."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    table: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        _, *services, _ = contestants(Path(name))
        for service in services:
            with service.running() as server:
                found = measure(server, sizes, seconds, rounds)
                print(f"{service.name}:\n{tabulate(found, headers='keys', floatfmt=('', '', '.0f', '.2f'))}")
                print(f"{server.resident_mb():.0f} MB resident\n", flush=True)
                table += [{"service": service.name} | row for row in found]
    OUT_FILE.parent.mkdir(parents=True, exist_ok=True)
    write_json(OUT_FILE, {"table": table})
