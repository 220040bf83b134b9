"""`on-time bench serving`: the service against an empty FastAPI endpoint and `mlflow models serve`, in one run.

The server has one core and the load generator (wrk) another; they alternate, so that machine drift affects all alike.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightgbm
import psutil
from tabulate import tabulate

from app.interface import EXAMPLE, FEATURE_NAMES, NAME, Request, columns, compute
from app.model import bundle as model
from stages.files import BUNDLE_DIR, write_json

OUT_FILE = Path("build/bench/serving.json")
START_SECONDS = 90
SERVER_CORE, CLIENT_CORE = 0, 1
SCRIPT = """
local file = assert(io.open("{body}")); wrk.body = file:read("*a"); file:close()
wrk.method = "POST"; wrk.headers["Content-Type"] = "{kind}"
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %f %f %f %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(95), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass
class Contestant:
    """A server, and the request that it gets; the command is a Python module and its arguments."""

    name: str
    command: str
    ready: str
    path: str
    body: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Run the server on its core for the duration of the block, which starts once the server responds."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = ["taskset", "-c", str(SERVER_CORE), sys.executable, "-m", *self.command.format(port=port).split()]
        environment, null = os.environ | self.environment | {"ONTIME_PORT": str(port)}, subprocess.DEVNULL
        started = time.perf_counter()
        with subprocess.Popen(command, env=environment, stdout=null, stderr=null) as process:
            try:
                self._wait(f"http://127.0.0.1:{port}{self.ready}", process)
                yield Server(self, port, psutil.Process(process.pid), time.perf_counter() - started)
            finally:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.terminate()
                process.terminate()

    def _wait(self, url: str, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(url, timeout=5):
                return
            time.sleep(0.01)
        sys.exit(f"error: {self.name} does not respond at {url}.")


@dataclass
class Server:
    """A running server."""

    contestant: Contestant
    port: int
    process: psutil.Process
    start_seconds: float

    def resident_mb(self) -> float:
        """Return the resident memory of its processes, MB."""
        processes = [self.process, *self.process.children(recursive=True)]
        return float(sum(process.memory_info().rss for process in processes)) / 1e6

    def cpu_seconds(self) -> float:
        """Return the processor time of its processes, seconds."""
        times = [p.cpu_times() for p in (self.process, *self.process.children(recursive=True))]
        return float(sum(t.user + t.system for t in times))

    def load(self, connections: int, seconds: int, script: Path, path: str = "") -> dict[str, float]:
        """Send requests without pause; latencies in milliseconds, processor time per request in microseconds."""
        before = self.cpu_seconds()
        url = f"http://127.0.0.1:{self.port}{path or self.contestant.path}"
        command = ["taskset", "-c", str(CLIENT_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
        done = subprocess.run([*command, "-s", script, url], capture_output=True, text=True, check=True)
        found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
        assert found, done.stdout
        requests, duration, p50, p95, p99, errors = map(float, found[1].split())
        milliseconds = {"p50_ms": p50 / 1000, "p95_ms": p95 / 1000, "p99_ms": p99 / 1000}
        cpu = (self.cpu_seconds() - before) / max(requests, 1) * 1e6
        return {"rps": requests / duration * 1e6, **milliseconds, "cpu_us": cpu, "errors": errors}


def contestants(folder: Path) -> list[Contestant]:
    """Return the floor, the service with everything on and without journal, and MLflow's server, on build/bundle."""
    bundle = model.load(BUNDLE_DIR / model.MODEL_FILE, BUNDLE_DIR / model.MANIFEST_FILE)
    baked = folder / "baked"
    shutil.copytree(BUNDLE_DIR, baked)
    known = {"name": NAME, "version": "1", "alias": "production", "run_id": None}
    (baked / "version.json").write_text(json.dumps(known | {"bundle_digest": bundle.digest}))
    row = compute(columns([Request.model_validate(EXAMPLE)]), bundle.lookups)[0].tolist()

    def service(name: str, journal: str) -> Contestant:
        environment = {"ONTIME_BAKED_MODEL": str(baked), "ONTIME_JOURNAL_URL": journal}
        return Contestant(name, "app", "/readyz", "/predict", EXAMPLE, environment)

    floor = "uvicorn ops.bench.empty_app:app --port {port} --no-access-log --log-level warning"
    mlflow = f"mlflow models serve -m {folder}/mlflow -p {{port}} --env-manager local --workers 1"
    frame = {"dataframe_split": {"columns": list(FEATURE_NAMES), "data": [row]}}
    return [
        Contestant("floor: empty FastAPI endpoint", floor, "/openapi.json", "/predict", EXAMPLE),
        service("service, everything on", f"sqlite:///{folder}/journal.db"),
        service("service without its journal", "none"),
        Contestant("mlflow models serve", mlflow, "/ping", "/invocations", frame),
    ]


def save_for_mlflow(folder: Path) -> None:
    """Write the model in the format of MLflow's server."""
    import mlflow.lightgbm  # pylint: disable=import-outside-toplevel # slow, and needed here only

    mlflow.lightgbm.save_model(lightgbm.Booster(model_file=BUNDLE_DIR / model.MODEL_FILE), folder / "mlflow")


def measure(servers: list[Server], connections: Sequence[int], rounds: int, seconds: int, folder: Path) -> list[Any]:
    """Return, by number of connections and server, the medians over the rounds and the share of the floor."""
    scripts = {}
    for i, server in enumerate(servers):
        body, scripts[server.port] = folder / f"body{i}.json", folder / f"post{i}.lua"
        body.write_text(json.dumps(server.contestant.body))
        scripts[server.port].write_text(SCRIPT.format(body=body, kind="application/json"))
        server.load(16, 1, scripts[server.port])  # warm up
    table = []
    for count in connections:
        runs = [[server.load(count, seconds, scripts[server.port]) for server in servers] for _ in range(rounds)]
        for i, server in enumerate(servers):
            medians = {key: statistics.median(run[i][key] for run in runs) for key in runs[0][i]}
            share = statistics.median(run[i]["rps"] / run[0]["rps"] for run in runs)
            table.append({"name": server.contestant.name, "connections": count, "of_floor": share} | medians)
    return table


def show(table: list[dict[str, Any]], servers: list[Server]) -> None:
    """Print what was measured."""
    print(tabulate(table, headers="keys", floatfmt=("", "", ".2f", ".0f", ".1f", ".1f", ".1f", ".0f", ".0f")))
    for server in servers:
        print(f"{server.contestant.name}: ready in {server.start_seconds:.2f} s, {server.resident_mb():.0f} MB")


def require() -> None:
    """Exit with one error line if a program is missing."""
    for program in ("wrk", "taskset"):
        if shutil.which(program) is None:
            sys.exit(f"error: {program} is not installed (Debian: apt install wrk util-linux).")


def run(seconds: int, rounds: int, connections: Sequence[int], without_mlflow: bool) -> None:
    """Measure, print a table and write build/bench/serving.json; exit with 1 if it failed more than the baseline."""
    require()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = contestants(folder)
        if without_mlflow:
            chosen.pop()
        else:
            save_for_mlflow(folder)
        with ExitStack() as stack:
            servers = [stack.enter_context(contestant.running()) for contestant in chosen]
            table = measure(servers, connections, rounds, seconds, folder)
            show(table, servers)
            starts = {server.contestant.name: server.start_seconds for server in servers}
            memory = {server.contestant.name: server.resident_mb() for server in servers}
    OUT_FILE.parent.mkdir(parents=True, exist_ok=True)
    write_json(OUT_FILE, {"table": table, "start_seconds": starts, "resident_mb": memory})
    floor, ours = (sum(row["errors"] for row in table if row["name"] == each.name) for each in chosen[:2])
    if ours > floor:
        sys.exit(f"error: the service failed {ours:.0f} requests, the floor {floor:.0f}.")
