"""The real service in a process of its own, and traffic to it."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from app.interface import EXAMPLE
from tests.support.processes import Program, free_port, running
from tests.support.repositories.clone import ROOT

NAME = "flight-delay"


@dataclass
class Traffic:
    """Requests one after another on some connections, until the block ends; every answer is looked at."""

    base: str
    connections: int = 4
    answers: list[tuple[str, str, str, float]] = field(default_factory=list)
    """Version in the header, version in the body, id, probability."""
    failed: list[str] = field(default_factory=list)
    slowest: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Traffic:
        self._threads.append(threading.Thread(target=lambda: asyncio.run(self._run())))
        self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._threads[-1].join(60)

    async def _run(self) -> None:
        async with httpx.AsyncClient(base_url=self.base, timeout=30) as client:
            await asyncio.gather(*(self._connection(client) for _ in range(self.connections)))

    async def _connection(self, client: httpx.AsyncClient) -> None:
        while not self._stop.is_set():
            started = time.perf_counter()
            try:
                answer = await client.post("/predict", json=EXAMPLE)
                body = answer.raise_for_status().json()
                facts = body["model"]["version"], body["prediction_id"], body["probability"]
                self.answers.append((answer.headers["X-Model-Version"], *facts))
            except (httpx.HTTPError, KeyError) as err:
                self.failed.append(repr(err))
            self.slowest = max(self.slowest, time.perf_counter() - started)
            await asyncio.sleep(0.002)

    def versions(self) -> set[str]:
        """Return the versions that answered so far."""
        return {version for version, *_ in self.answers}

    def ids(self) -> set[str]:
        """Return the ids that were answered so far."""
        return {name for _, _, name, _ in self.answers}


class Service:
    """A running service."""

    def __init__(self, base: str, process: Program) -> None:
        self.base, self.process = base, process
        self.pid, self.port = process.pid, int(base.rpartition(":")[2])
        self.journal = ""

    def version(self) -> dict[str, object]:
        """Return what /version says."""
        return dict(httpx.get(f"{self.base}/version").json())

    def serves(self, version: str) -> bool:
        """Tell whether this version is served."""
        return self.version().get("model") == {"name": NAME, "version": version}

    def metric(self, series: str) -> float:
        """Return the value of a series in the exposition; 0 if it is absent."""
        text = httpx.get(f"{self.base}/metrics").text
        found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    @contextmanager
    def peak(self) -> Iterator[Callable[[], int]]:
        """Watch a block; yield a function that returns the bytes by which the process grew in it, at its largest."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="utf-8")  # resets VmHWM

        def largest() -> int:
            status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
            return int(status.partition("VmHWM:")[2].split()[0]) << 10

        before = largest()
        yield lambda: largest() - before

    def growth(self, watched: Sequence[str], call: Callable[[], None]) -> list[float]:
        """Return by how much each of these series grows in a call."""
        before = [self.metric(series) for series in watched]
        call()
        return [self.metric(series) - old for series, old in zip(watched, before, strict=True)]


Start = Callable[..., Service]


@contextmanager
def started(cwd: Path, ready: str = "readyz", **settings: str) -> Iterator[Service]:
    """Run the service until the block ends."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    plain = {"ONTIME_PORT": str(port), "ONTIME_DRAIN_SECONDS": "0", "MLFLOW_TRACKING_URI": "", "PYTHONPATH": str(ROOT)}
    with running([sys.executable, "-m", "app"], f"{base}/{ready}", cwd, **(plain | settings)) as process:
        yield Service(base, process)
