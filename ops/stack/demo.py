"""`make demo`: the service, one request and its answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

from app.interface import EXAMPLE

START_SECONDS = 60


def ask(base: str) -> str:
    """Return the answer to the example request."""
    request = urllib.request.Request(
        f"{base}/predict", json.dumps(EXAMPLE).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return str(json.dumps(json.load(response), indent=2))


def wait_ready(base: str, service: subprocess.Popen[bytes]) -> None:
    """Wait until /readyz is 200; end when the service does."""
    for _ in range(START_SECONDS * 5):
        if service.poll() is not None:
            sys.exit(service.returncode)
        try:
            with urllib.request.urlopen(f"{base}/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit("error: the service is not ready after a minute; its log above has the reason.")


def show(port: int) -> None:
    """Start the service, show one request, and keep serving until interrupted."""
    base, settings = f"http://127.0.0.1:{port}", {"ONTIME_PORT": str(port), "ONTIME_LOG_LEVEL": "warning"}
    with subprocess.Popen([sys.executable, "-m", "app"], env=os.environ | settings) as service:
        try:
            wait_ready(base, service)
            print(f"\ncurl {base}/predict --json '{json.dumps(EXAMPLE)}'\n{ask(base)}")
            print(f"\nSwagger: {base}/docs   Ctrl-C ends the service.", flush=True)
            service.wait()
        except KeyboardInterrupt:
            service.terminate()
