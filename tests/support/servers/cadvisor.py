"""A stand-in for cAdvisor: its documented names, labels as under plain Docker, and made-up values."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

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
