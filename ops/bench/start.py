"""`on-time bench start`: from the command `model serve` until it answers a request, with and without the cache."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.errors import OnTimeError
from app.interface import EXAMPLE

START_SECONDS = 90
PAUSE_SECONDS = 0.01


class StartFailed(OnTimeError):
    """The service ended, or did not answer in time."""


@contextmanager
def serving(folder: Path, cache: Path | str) -> Iterator[str]:
    """Run `model serve` with a cache and a journal in a folder until the block ends; yield its address at once."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"ONTIME_MODEL_CACHE": str(cache), "ONTIME_JOURNAL_URL": f"sqlite:///{folder}/journal.db"}
    command = [sys.executable, "-m", "ops.cli", "model", "serve", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        settings |= {"ONTIME_DRAIN_SECONDS": "0", "ONTIME_API_KEYS": ""}
        with subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log) as process:
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def seconds(folder: Path, cache: Path | str) -> float:
    """Return the seconds from the start to the first prediction; raise StartFailed if there is none."""
    started = time.perf_counter()
    with serving(folder, cache) as base:
        body, header = json.dumps(EXAMPLE).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{base}/predict", body, header)
        while time.perf_counter() - started < START_SECONDS:
            try:
                with urllib.request.urlopen(request, timeout=START_SECONDS):
                    return time.perf_counter() - started
            except OSError:
                time.sleep(PAUSE_SECONDS)
    reason = (folder / "log").read_text(encoding="utf-8").strip().splitlines()[-1:]
    raise StartFailed(f"`on-time model serve` did not answer within {START_SECONDS} s: {' '.join(reason)}")


def compare(rounds: int) -> str:
    """Measure starts without and with the cache, in turn; return the medians as text."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        caches: dict[str, Path | str] = {"without the cache": "none", "with the cache": folder / "served"}
        seconds(folder, folder / "served")  # fills it
        taken = [{name: seconds(folder, cache) for name, cache in caches.items()} for _ in range(rounds)]
    lines = ["`on-time model serve` until its first prediction, median:"]
    for name in caches:
        found = [one[name] for one in taken]
        lines.append(f"{name}: {statistics.median(found):.2f} s ({min(found):.2f} to {max(found):.2f})")
    return "\n".join(lines)
