"""Processes that a test starts, and waits: each has a limit, and a failed wait names its condition."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
import pytest

T = TypeVar("T")
READY_SECONDS = 180
"""For a process to be ready; generous, as the machine may be busy."""
STOP_SECONDS = 20
"""From SIGTERM to SIGKILL."""
OUTPUT_CHARACTERS = 3000


def wait_for(
    what: str, condition: Callable[[], T], seconds: float = 120, about: Callable[[], object] | None = None
) -> T:
    """Call a condition until its value is true, and return that value; fail the test after some seconds.

    The failure names `what` was waited for, and the value of `about` where it is given.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}" + (f"\n{about()}" if about else ""))
        time.sleep(0.02)
    return found


async def until(what: str, condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait as `wait_for` does, while other tasks of the event loop run."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.02)


class Program(subprocess.Popen[str]):
    """A process whose output is kept in a file."""

    def __init__(self, command: Sequence[str | Path], log: Path, cwd: Path | None, environment: dict[str, str]) -> None:
        self.log = log
        with log.open("wb") as file:
            # MLflow writes the address of a registry that a test has used to the environment of all that is started.
            env = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | environment
            super().__init__(list(map(str, command)), cwd=cwd, env=env, stdout=file, stderr=file, text=True)

    def output(self) -> str:
        """Return what it has printed so far, standard error included."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_until(self, what: str, condition: Callable[[], object], seconds: float = READY_SECONDS) -> None:
        """Wait for a condition; a process that ends first fails the test with its output."""

        def holds() -> bool:
            if self.poll() is not None:
                pytest.fail(f"{self.args} ended with {self.returncode} before {what}:\n{self._tail()}")
            return bool(condition())

        wait_for(what, holds, seconds, self._tail)

    def end(self) -> None:
        """End it and the processes that it has started."""
        end(self)

    def _tail(self) -> str:
        return self.output()[-OUTPUT_CHARACTERS:]


def end(process: subprocess.Popen[str]) -> None:
    """Terminate a process, and kill by their ids it, if it lives for STOP_SECONDS more, and what it leaves behind."""
    if process.poll() is not None:
        return
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(STOP_SECONDS)


def run(command: Sequence[str | Path], cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as subprocess.run does; a test that is interrupted ends its descendants too."""
    line, pipe = list(map(str, command)), subprocess.PIPE
    with subprocess.Popen(line, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            out, err = process.communicate()
        finally:
            end(process)
    return subprocess.CompletedProcess(line, process.returncode, out, err)


@contextmanager
def started(command: Sequence[str | Path], cwd: Path | None = None, **environment: str) -> Iterator[Program]:
    """Run a process until the block ends."""
    with tempfile.TemporaryDirectory(prefix="on-time-test-") as folder:
        program = Program(command, Path(folder) / "output", cwd, environment)
        try:
            yield program
        finally:
            program.end()


@contextmanager
def running(
    command: Sequence[str | Path], url: str, cwd: Path | None = None, seconds: float = READY_SECONDS, **environment: str
) -> Iterator[Program]:
    """Run a server until the block ends; the block starts when the URL answers 200."""
    with started(command, cwd, **environment) as server:
        server.wait_until(f"200 from {url}", lambda: answers(url), seconds)
        yield server


def answers(url: str) -> bool:
    """Tell whether a URL answers 200; False for a connection that is refused, and for another status."""
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def end_tests_by_signals() -> None:
    """Let SIGINT and SIGTERM interrupt pytest, so that fixtures end what they started.

    A shell's background ignores SIGINT, and what it starts inherits that.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
