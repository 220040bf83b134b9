"""Servers that run while pictures are taken, on free ports of this machine."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from app.errors import OnTimeError

READY_SECONDS = 300
STOP_SECONDS = 20


class ServerFailed(OnTimeError):
    """A server ended, or is not ready in time."""


@contextmanager
def running(arguments: str, ready: str, port: int, log: Path, **environment: str) -> Iterator[str]:
    """Run a Python module with arguments until the block ends; yield its address once the path `ready` returns 200.

    Raise ServerFailed with the end of its log if it ends before.
    """
    base = f"http://127.0.0.1:{port}"
    with log.open("wb") as file:
        command = [sys.executable, "-m", *arguments.split()]
        process = subprocess.Popen(command, env=os.environ | environment, stdout=file, stderr=file)
    try:
        _wait(process, f"{base}{ready}", arguments, log)
        yield base
    finally:
        _stop(process)


def _wait(process: subprocess.Popen[bytes], url: str, name: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=10).status_code == 200:
                return
        time.sleep(0.2)
    reason = "is not ready" if process.poll() is None else f"ended with {process.returncode}"
    words = log.read_text(encoding="utf-8", errors="replace").split()
    raise ServerFailed(f"`python -m {name}` {reason}; the end of its log: {' '.join(words)[-400:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
