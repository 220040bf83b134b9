"""`make load`: the latency of /predict under concurrent connections; the service is a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time

import httpx
import numpy as np

from app.schemas import EXAMPLE_FLIGHT
from ops.demo import wait_ready


async def hammer(base: str, connections: int, seconds: float) -> tuple[list[float], int]:
    """Return the latencies (seconds) of all answers within the time, and the number of errors."""
    body = json.dumps(EXAMPLE_FLIGHT).encode()
    latencies: list[float] = []
    errors = 0
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal errors
        async with httpx.AsyncClient(base_url=base, headers={"Content-Type": "application/json"}) as http:
            while (start := time.perf_counter()) < end:
                answer = await http.post("/predict", content=body)
                latencies.append(time.perf_counter() - start)
                errors += answer.status_code != 200

    await asyncio.gather(*(client() for _ in range(connections)))
    return latencies, errors


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main() -> None:
    """Start the service, warm it up, measure, and print requests per second and quantiles."""
    parser = argparse.ArgumentParser(prog="python -m ops.load")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    environment = os.environ | {"ONTIME_PORT": str(port), "ONTIME_LOG_LEVEL": "warning"}
    with subprocess.Popen([sys.executable, "-m", "app"], env=environment) as service:
        try:
            wait_ready(base, service)
            asyncio.run(hammer(base, arguments.connections, 1))
            latencies, errors = asyncio.run(hammer(base, arguments.connections, arguments.seconds))
        finally:
            service.terminate()
    p50, p95, p99 = np.quantile(latencies, [0.5, 0.95, 0.99]) * 1000
    print(
        f"{arguments.connections} connections, {arguments.seconds:g} s: "
        f"{len(latencies) / arguments.seconds:.0f} requests/s, "
        f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, {errors} errors"
    )
    sys.exit(1 if errors else 0)


if __name__ == "__main__":
    main()
