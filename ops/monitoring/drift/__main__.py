"""`make drift`: the drift monitor as a service; its results are on /metrics."""

from __future__ import annotations

import logging
import time

from prometheus_client import start_http_server

from ops.monitoring.drift.monitor import DriftSettings, Monitor, log
from stages.errors import run


def main() -> None:
    """Serve the metrics, and run until the process is ended."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    settings = DriftSettings()
    monitor = Monitor(settings)
    start_http_server(settings.port, settings.host, monitor.gauges.registry)
    log.info("metrics on http://%s:%d/metrics, a run every %g minutes", settings.host, settings.port, settings.minutes)
    due = 0.0
    while True:
        due = monitor.step(time.monotonic(), due)
        time.sleep(settings.registry_seconds)


if __name__ == "__main__":
    run(main)
