"""`on-time bench serving`: the service beside an empty FastAPI endpoint, `mlflow models serve` and `Booster.predict`.

The server has one core and the load generator (wrk) another. All are measured in turn in each round, so that a change
of the machine's speed affects all alike. `of_floor` and `of_booster` are medians of the quotients within a round.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightgbm
import pyarrow as pa
from pydantic import TypeAdapter
from tabulate import tabulate

from app.api.edge.middleware import MAX_BODIES
from app.batches.stream import MEDIA_TYPE
from app.errors import OnTimeError
from app.interface import EXAMPLE, FEATURE_NAMES, NAME, ROWS_NOUN, Request, arrays_of_requests, compute
from app.model import bundles
from ops.studies.speed.server import Server, running
from stages.base.paths import BUNDLE_DIR, write_json

OUT_FILE = Path("build/bench/serving.json")
SERVER_CORE = ("taskset", "-c", "0")
CLIENT_CORE = 1
BATCH_PATH = "/predict/batch"
WRK_TIMEOUT = "30"
"""Seconds."""
BATCH_CONNECTIONS = 2
"""So that the service never waits for a batch."""
JSON = "application/json"
FLOOR = "floor: empty FastAPI endpoint"
Calls = dict[str, Callable[[int, int], dict[str, float]]]
SCRIPT = """
local file = assert(io.open("{body}")); wrk.body = file:read("*a"); file:close()
wrk.method = "POST"; wrk.headers["Content-Type"] = "{kind}"
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %f %f %f %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(95), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


class ServingFailed(OnTimeError):
    """The service cannot be measured, or failed requests."""


@dataclass
class Contestant:
    """A server: its Python module and arguments, its readiness path, its request."""

    name: str
    module: str
    ready: str
    path: str = "/predict"
    body: dict[str, Any] = field(default_factory=EXAMPLE.copy)
    environment: dict[str, str] = field(default_factory=dict)


def bake(folder: Path) -> Path:
    """Return a folder with build/bundle as version 1 of the registry, for the setting `baked_model`."""
    baked = shutil.copytree(BUNDLE_DIR, folder / "baked")
    version = {
        "name": NAME,
        "version": "1",
        "alias": "production",
        "run_id": None,
        "bundle_digest": load_model().digest,
    }
    (baked / "version.json").write_text(json.dumps(version), encoding="utf-8")
    return baked


def load_model() -> bundles.Bundle:
    """Return the model of build/bundle."""
    return bundles.load(BUNDLE_DIR / bundles.MODEL_FILE, BUNDLE_DIR / bundles.MANIFEST_FILE)


def contestants(folder: Path, with_mlflow: bool) -> list[Contestant]:
    """Return the floor, the service with everything on and without journal, and MLflow's server, on build/bundle."""
    baked = bake(folder)
    variables = {"ONTIME_BAKED_MODEL": str(baked), "MLFLOW_TRACKING_URI": "", "ONTIME_JOURNAL_URL": "none"}
    variables["ONTIME_REQUEST_SECONDS"] = WRK_TIMEOUT  # a batch takes long on a busy machine
    journal = variables | {"ONTIME_JOURNAL_URL": f"sqlite:///{folder}/journal.db"}
    floor = "uvicorn ops.studies.speed.empty_app:app --port {port} --no-access-log --log-level warning"
    chosen = [
        Contestant(FLOOR, floor, "/openapi.json"),
        Contestant("service, everything on", "app", "/readyz", environment=journal),
        Contestant("service without its journal", "app", "/readyz", environment=variables),
    ]
    if with_mlflow:
        import mlflow.lightgbm  # pylint: disable=import-outside-toplevel # slow, and needed here only

        mlflow.lightgbm.save_model(lightgbm.Booster(model_file=BUNDLE_DIR / bundles.MODEL_FILE), folder / "mlflow")
        row = compute(arrays_of_requests([Request.model_validate(EXAMPLE)]), load_model().lookups)[0].tolist()
        frame = {"dataframe_split": {"columns": list(FEATURE_NAMES), "data": [row]}}
        module = f"mlflow models serve -m {folder}/mlflow -p {{port}} --env-manager local --workers 1"
        chosen.append(Contestant("mlflow models serve", module, "/ping", "/invocations", frame))
    return chosen


def load(server: Server, path: str, kind: str, content: bytes, connections: int, seconds: int) -> dict[str, float]:
    """Send a body of a media type without pause; latencies in ms, processor time per request in µs."""
    before = server.cpu_seconds()
    with tempfile.TemporaryDirectory() as name:
        body, script = Path(name, "body"), Path(name, "post.lua")
        body.write_bytes(content)
        script.write_text(SCRIPT.format(body=body, kind=kind), encoding="utf-8")
        command = [
            "taskset",
            "-c",
            str(CLIENT_CORE),
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--timeout",
            f"{WRK_TIMEOUT}s",
            "-s",
            str(script),
        ]
        done = subprocess.run([*command, f"{server.address}{path}"], capture_output=True, text=True, check=True)
    result = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if result is None:
        raise ServingFailed(f"wrk printed no result: {done.stdout}")
    requests, duration, *latencies, errors = map(float, result[1].split())
    cpu = (server.cpu_seconds() - before) / max(requests, 1) * 1e6
    quantiles = {name: value / 1000 for name, value in zip(("p50_ms", "p95_ms", "p99_ms"), latencies, strict=True)}
    return {"rps": requests / duration * 1e6, **quantiles, "cpu_us": cpu, "errors": errors}


def measure_requests(calls: Calls, connections: Sequence[int], rounds: int, seconds: int) -> list[dict[str, Any]]:
    """Return a row for each number of connections and server: medians over the rounds."""
    for call in calls.values():
        call(16, 1)  # warm up
    table = []
    for count in connections:
        runs = [{name: call(count, seconds) for name, call in calls.items()} for _ in range(rounds)]
        for name in calls:
            medians = {key: statistics.median(run[name][key] for run in runs) for key in runs[0][name]}
            share = statistics.median(run[name]["rps"] / run[FLOOR]["rps"] for run in runs)
            table.append({"name": name, "connections": count, "of_floor": share, **medians})
    return table


def batches_of(rows: list[dict[str, Any]]) -> dict[str, tuple[str, bytes, int]]:
    """Return media type, body and number of rows of a batch in each format; of one that is too large, half the rows."""
    table = pa.Table.from_pylist([Request.model_validate(row).model_dump() for row in rows])
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    sent = rows
    body = json.dumps({ROWS_NOUN: sent}).encode()
    while len(body) > MAX_BODIES[BATCH_PATH]:
        sent = sent[: len(sent) // 2]
        body = json.dumps({ROWS_NOUN: sent}).encode()
    return {"JSON": (JSON, body, len(sent)), "Arrow": (MEDIA_TYPE, stream.getvalue(), len(rows))}


def measure_batches(
    servers: dict[str, Server], sizes: Sequence[int], rounds: int, seconds: int
) -> list[dict[str, Any]]:
    """Return, by size and contestant, rows per second and the share of `Booster.predict`: medians over the rounds."""
    model = load_model()
    golden = [item["request"] for item in model.manifest["golden"]]
    booster, reader = lightgbm.Booster(model_file=BUNDLE_DIR / bundles.MODEL_FILE), TypeAdapter(list[Request])
    table = []
    for size in sizes:
        rows = (golden * (size // len(golden) + 1))[:size]
        text = json.dumps(rows).encode()
        features = compute(arrays_of_requests(reader.validate_json(text)), model.lookups)
        calls: dict[str, Callable[[], float]] = {
            "Booster.predict": partial(_call, partial(booster.predict, features, num_threads=1), size, seconds),
            "Pydantic alone": partial(_call, partial(reader.validate_json, text), size, seconds),
        }
        for kind, batch in batches_of(rows).items():
            calls |= {f"{kind}, {name}": partial(_send, server, batch, seconds) for name, server in servers.items()}
        runs = [{name: call() for name, call in calls.items()} for _ in range(rounds)]
        for name in calls:
            speed = statistics.median(run[name] for run in runs)
            share = statistics.median(run[name] / run["Booster.predict"] for run in runs)
            table.append({"rows": size, "name": name, "rows/s": speed, "of_booster": share})
    return table


def _call(function: Callable[[], Any], rows: int, seconds: int) -> float:
    function()
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        function()
        calls += 1
    return rows * calls / (time.perf_counter() - started)


def _send(server: Server, batch: tuple[str, bytes, int], seconds: int) -> float:
    kind, body, rows = batch
    found = load(server, BATCH_PATH, kind, body, BATCH_CONNECTIONS, seconds)
    if found["errors"]:
        raise ServingFailed(f"{found['errors']:.0f} batches of {rows} rows failed ({kind}).")
    return rows * found["rps"]


def measure_starts(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Return the seconds until `on-time model serve` is ready, with the model from the cache and from the registry."""
    variables = {"ONTIME_JOURNAL_URL": f"sqlite:///{folder}/start.db", "ONTIME_API_KEYS": "", "ONTIME_BAKED_MODEL": ""}
    caches = {"from the registry": "none", "from the cache": str(folder / "served")}
    seconds: dict[str, list[float]] = {name: [] for name in caches}
    for _ in range(rounds + 1):  # the first round fills the cache
        for name, cache in caches.items():
            with running(
                "ops.cli model serve --port {port}", "/readyz", ONTIME_MODEL_CACHE=cache, **variables
            ) as server:
                seconds[name].append(server.start_seconds)
    return [{"name": f"model serve, {name}", "ready_s": statistics.median(seconds[name][1:])} for name in caches]


def measure_service(
    seconds: int, rounds: int, connections: Sequence[int], sizes: Sequence[int], without_mlflow: bool
) -> None:
    """Measure, print the tables and write build/bench/serving.json; raise ServingFailed if requests failed."""
    for program in ("wrk", "taskset"):
        if shutil.which(program) is None:
            raise ServingFailed(f"{program} is not installed (Debian: apt install wrk util-linux).")
    os.sched_setaffinity(0, {CLIENT_CORE})
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        started: list[dict[str, Any]] = []
        if not without_mlflow:
            started = measure_starts(folder, rounds)
        calls, servers = Calls(), dict[str, Server]()
        for each in contestants(folder, not without_mlflow):
            server = stack.enter_context(running(each.module, each.ready, SERVER_CORE, **each.environment))
            started.append({"name": each.name, "ready_s": server.start_seconds})
            calls[each.name] = partial(load, server, each.path, JSON, json.dumps(each.body).encode())
            servers[each.name] = server
        requests = measure_requests(calls, connections, rounds, seconds)
        print(tabulate(requests, headers="keys", floatfmt=("", "", ".2f", ".0f", ".1f", ".1f", ".1f", ".0f", ".0f")))
        services = {name: server for name, server in servers.items() if name.startswith("service")}
        for row in started[-len(servers) :]:
            row["memory_mb"] = servers[row["name"]].resident_mb()
        batches = measure_batches(services, sizes, rounds, seconds)
        print("\n" + tabulate(batches, headers="keys", floatfmt=("", "", ".0f", ".2f")))
        for row in started[-len(servers) :]:
            row["after_batches_mb"] = servers[row["name"]].resident_mb()
        print("\n" + tabulate(started, headers="keys", floatfmt=("", ".2f", ".0f", ".0f")))
    OUT_FILE.parent.mkdir(parents=True, exist_ok=True)
    write_json(OUT_FILE, {"requests": requests, "batches": batches, "start": started})
    floor, *failed = (sum(row["errors"] for row in requests if row["name"] == name) for name in (FLOOR, *services))
    if max(failed) > floor:
        raise ServingFailed(f"the service failed {max(failed):.0f} requests, the floor {floor:.0f}.")
