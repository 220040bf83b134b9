"""A server that runs beside a measurement, on a free port of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from app.errors import OnTimeError

READY_SECONDS = 120
POLL_SECONDS = 0.01


class ServerFailed(OnTimeError):
    """A server ended, or was not ready in time."""


@dataclass(frozen=True)
class Server:
    """A running server: its address, its main process, and the seconds that its start took."""

    address: str
    process: psutil.Process
    start_seconds: float

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Return the processor time of its processes, seconds."""
        times = [process.cpu_times() for process in self._processes()]
        return float(sum(each.user + each.system for each in times))

    def resident_mb(self) -> float:
        """Return the resident memory of its processes, MB."""
        return float(sum(process.memory_info().rss for process in self._processes())) / 1e6


@contextmanager
def running(module: str, ready: str, prefix: Sequence[str] = (), **environment: str) -> Iterator[Server]:
    """Run a Python module with arguments until the block ends, which starts once the path `ready` returns 200.

    `{port}` in the arguments, and the variable ONTIME_PORT, are a free port. Raises ServerFailed if it does not start.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    address = f"http://127.0.0.1:{port}"
    command = [*prefix, sys.executable, "-m", *module.format(port=port).split()]
    variables = os.environ | {"ONTIME_PORT": port, "ONTIME_DRAIN_SECONDS": "0"} | environment
    started = time.perf_counter()
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        own = psutil.Process(process.pid)
        try:
            while not _answers(f"{address}{ready}"):
                if process.poll() is not None or time.perf_counter() > started + READY_SECONDS:
                    raise ServerFailed(f"`python -m {module}` did not start; run it by hand to see why.")
                time.sleep(POLL_SECONDS)
            yield Server(address, own, time.perf_counter() - started)
        finally:
            with suppress(psutil.NoSuchProcess):  # it has ended
                for child in own.children(recursive=True):
                    child.terminate()
            process.terminate()


def _answers(url: str) -> bool:
    with suppress(OSError), urllib.request.urlopen(url, timeout=10):
        return True
    return False
