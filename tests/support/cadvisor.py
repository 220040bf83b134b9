"""A stand-in for cAdvisor: its documented names, with the labels that it gives under plain Docker.

The tests use made-up values; `python -m tests.support.cadvisor NAME` serves Docker's own counters of the containers
with such a name, where cAdvisor's image cannot be had.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx

CONTAINERS = ("on-time-api-1", "on-time-drift-1", "on-time-prometheus-1")
STARTED = time.time()

COUNTERS = {  # per second; google/cadvisor docs/storage/prometheus.md, and its testdata for container_oom_events_total
    "container_cpu_usage_seconds_total": 0.3,
    "container_cpu_cfs_periods_total": 10,
    "container_cpu_cfs_throttled_periods_total": 0.5,
    "container_network_receive_bytes_total": 20_000,
    "container_network_transmit_bytes_total": 35_000,
    "container_network_receive_packets_dropped_total": 0,
    "container_network_transmit_packets_dropped_total": 0,
    "container_network_receive_errors_total": 0,
    "container_network_transmit_errors_total": 0,
    "container_oom_events_total": 0,
}
GAUGES = {
    "container_spec_cpu_quota": 100_000,
    "container_spec_cpu_period": 100_000,
    "container_memory_working_set_bytes": 180e6,
    "container_spec_memory_limit_bytes": 512e6,
    "container_fs_usage_bytes": 40_960,
    "container_start_time_seconds": STARTED,
}

NETWORK = {
    "rx_bytes": "receive_bytes",
    "tx_bytes": "transmit_bytes",
    "rx_dropped": "receive_packets_dropped",
    "tx_dropped": "transmit_packets_dropped",
    "rx_errors": "receive_errors",
    "tx_errors": "transmit_errors",
}
"""Docker's names of what a network interface has counted, and cAdvisor's."""


def exposition() -> str:
    """Return what cAdvisor would say now; root and system slices come without a name, as they do there."""
    now = time.time()
    lines = []
    values = {name: rate * (now - STARTED) for name, rate in COUNTERS.items()} | GAUGES | {"container_last_seen": now}
    for name, value in values.items():
        lines.append(f"# TYPE {name} {'counter' if name in COUNTERS else 'gauge'}")
        lines.append(f'{name}{{id="/",image="",name=""}} {value}')
        for i, container in enumerate(CONTAINERS):
            labels = f'id="/docker/{i:064x}",image="on-time:model-v1",name="{container}"'
            if name.startswith("container_network"):
                labels += ',interface="eth0"'
            lines.append(f"{name}{{{labels}}} {value}")
    return "\n".join(lines) + "\n"


def counters(prefix: str) -> str:
    """Return what Docker's engine knows of these containers, under cAdvisor's names."""
    lines = []
    with httpx.Client(transport=httpx.HTTPTransport(uds="/var/run/docker.sock"), base_url="http://docker") as docker:
        for found in docker.get("/containers/json", params={"filters": json.dumps({"name": [prefix]})}).json():
            about = docker.get(f"/containers/{found['Id']}/json", params={"size": 1}).json()
            stats = docker.get(f"/containers/{found['Id']}/stats", params={"stream": 0, "one-shot": 1}).json()
            labels = f'id="/docker/{about["Id"]}",image="{found["Image"]}",name="{about["Name"][1:]}"'
            lines += [f"{name}{{{labels}}} {value}" for name, value in use(about, stats).items()]
            for interface, network in stats["networks"].items():
                for ours, theirs in NETWORK.items():
                    lines.append(
                        f'container_network_{theirs}_total{{{labels},interface="{interface}"}} {network[ours]}'
                    )
    return "\n".join(sorted(lines)) + "\n"


def use(about: dict[str, Any], stats: dict[str, Any]) -> dict[str, float]:
    """Return what a container uses of what it may use; the page cache that can be taken back does not count."""
    cpu, memory = stats["cpu_stats"], stats["memory_stats"]
    return {
        "container_cpu_usage_seconds_total": cpu["cpu_usage"]["total_usage"] / 1e9,
        "container_cpu_cfs_periods_total": cpu["throttling_data"]["periods"],
        "container_cpu_cfs_throttled_periods_total": cpu["throttling_data"]["throttled_periods"],
        "container_spec_cpu_quota": about["HostConfig"]["NanoCpus"] / 1e4,
        "container_spec_cpu_period": 100_000,
        "container_memory_working_set_bytes": memory["usage"] - memory["stats"]["total_inactive_file"],
        "container_spec_memory_limit_bytes": memory["limit"],
        "container_oom_events_total": int(about["State"]["OOMKilled"]),
        "container_fs_usage_bytes": about["SizeRw"],
        "container_start_time_seconds": datetime.fromisoformat(about["State"]["StartedAt"][:19] + "+00:00").timestamp(),
        "container_last_seen": time.time(),
    }


@contextmanager
def exporter(port: int, answer: Callable[[], str] = exposition) -> Iterator[None]:
    """Serve the exposition on loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        """Answers every path alike."""

        def do_GET(self) -> None:  # pylint: disable=invalid-name
            """Answer a scrape."""
            body = answer().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(BrokenPipeError):  # who asked may have ended
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:  # pylint: disable=arguments-differ
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    latest = [""]
    with exporter(8080, lambda: latest[0]):  # Docker may take longer than a scrape waits
        while True:
            latest[0] = counters(sys.argv[1])
            time.sleep(1)
