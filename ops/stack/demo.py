"""`make demo`: the service, one request and its response, and where to go from there."""

import json
import os
import subprocess
import sys
import time
import webbrowser
from contextlib import suppress

import httpx

from app.interface import EXAMPLE

START_SECONDS = 120
NEXT = """
{base}/         the page: try the model, see how good it is and what it is doing
{base}/docs     Swagger: every endpoint with its schema
{base}/metrics  what Prometheus reads
`make ui` in another terminal: MLflow, with the runs and the registry. Ctrl-C ends the service."""


def wait_ready(base: str, service: subprocess.Popen[bytes]) -> None:
    """Wait until /readyz is 200; exit when the service does."""
    for _ in range(START_SECONDS * 5):
        if service.poll() is not None:
            sys.exit(service.returncode)
        with suppress(httpx.HTTPError):
            if httpx.get(f"{base}/readyz", timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    sys.exit(f"error: the service is not ready after {START_SECONDS} seconds; its log above has the reason.")


def has_display() -> bool:
    """Tell whether a person at a terminal has a display to open a page on."""
    return sys.stdout.isatty() and any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def run_demo(port: int) -> None:
    """Start the service, show one request, and keep serving until interrupted."""
    base, settings = f"http://127.0.0.1:{port}", {"ONTIME_PORT": str(port), "ONTIME_LOG_LEVEL": "warning"}
    with subprocess.Popen([sys.executable, "-m", "app"], env=os.environ | settings) as service:
        try:
            wait_ready(base, service)
            print(f"\ncurl {base}/predict --json '{json.dumps(EXAMPLE)}'")
            print(json.dumps(httpx.post(f"{base}/predict", json=EXAMPLE, timeout=10).json(), indent=2))
            print(NEXT.format(base=base), flush=True)
            if has_display():
                webbrowser.open(f"{base}/")
            while service.poll() is None:
                time.sleep(0.2)  # not wait(): Polars, which MLflow imports, lets no signal interrupt it
        except KeyboardInterrupt:
            service.terminate()
