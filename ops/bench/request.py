"""`on-time bench request`: where the microseconds of one prediction go, part by part, in this process.

The parts are called one after another, as app/api/fast_path.py calls them, since one alone in a loop finds all that it
needs in the processor's caches, and takes half the time. What is left of the processor time of a request under load
(`on-time bench serving`) is the operating system's: sockets and the event loop.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
import uvloop
from tabulate import tabulate
from uvicorn.server import ServerState

from app.api.application import create_app
from app.api.bodies import REQUEST
from app.api.edge import id_of
from app.api.fast_path import PATH, FastPath
from app.api.protocol import Protocol
from app.interface import EXAMPLE, NAME, compute_one
from app.journal.writer import Journal
from app.metrics import Metrics
from app.model import bundle as model
from app.model.prediction import NoJournal, Predictions, Predictor, new_ids
from app.model.served import ServedModel
from app.settings import Settings
from stages.files import BUNDLE_DIR

CALLS = 5000
BODY = json.dumps(EXAMPLE).encode()
HEAD = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
FLUSHED_SECONDS = 30


class Nowhere(asyncio.Transport):  # pylint: disable=abstract-method # the protocol calls these
    """A connection that is never written to."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Discard data."""

    def close(self) -> None:
        """Do nothing."""

    def is_closing(self) -> bool:
        """Return that the connection is open."""
        return False


def microseconds(calls: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Return the medians over the rounds of the time per call, microseconds, of calls one after another."""
    clock, taken = time.perf_counter, []
    for _ in range(rounds):
        sums = [0.0] * len(calls)
        for _ in range(CALLS):
            before = clock()
            for i, call in enumerate(calls):
                call()
                after = clock()
                sums[i] += after - before
                before = after
        taken.append([spent / CALLS * 1e6 for spent in sums])
    return [statistics.median(each) for each in zip(*taken, strict=True)]


def served() -> ServedModel:
    """Return the model of build/bundle."""
    found = model.load(BUNDLE_DIR / model.MODEL_FILE, BUNDLE_DIR / model.MANIFEST_FILE)
    return ServedModel(NAME, "1", "production", None, found)


async def respond(using: ServedModel, rounds: int) -> float:
    """Return the time of a request in the server, from the received bytes to the response's."""
    app = create_app(Settings(journal_url=""))
    app.state.served = using
    config = uvicorn.Config(FastPath(app), log_config=None, access_log=False, proxy_headers=False, ws="none")
    connection = Protocol(config, ServerState(), {})
    connection.connection_made(Nowhere())
    received, taken = HEAD.encode() + BODY, []
    try:
        for _ in range(rounds):
            before = time.perf_counter()
            for _ in range(CALLS):
                connection.data_received(received)
                await asyncio.sleep(0)  # the server's task responds
            taken.append((time.perf_counter() - before) / CALLS * 1e6)
    finally:
        connection.connection_lost(None)
    if connection.server_state.total_requests != CALLS * rounds:
        raise RuntimeError(f"{connection.server_state.total_requests} of {CALLS * rounds} requests were answered")
    return statistics.median(taken)


def journal(one: Predictions, rounds: int) -> tuple[float, float]:
    """Return the time of a prediction in the journal: on the request's thread, and in the process altogether."""
    with tempfile.TemporaryDirectory() as folder:
        metrics, size = Metrics(), CALLS * rounds
        sink = Journal(Settings(journal_url=f"sqlite:///{folder}/journal.db", journal_queue=size), metrics.journal)
        sink.start()
        batches = [one._replace(ids=new_ids(one.created, 1)) for _ in range(size)]
        before, own = time.process_time(), time.thread_time()
        for batch in batches:
            sink.record(batch)
        recorded, deadline = time.thread_time() - own, time.monotonic() + FLUSHED_SECONDS
        while sink.waiting(batches[-1].ids) and time.monotonic() < deadline:
            time.sleep(0.01)
        whole = time.process_time() - before
        sink.close()
    return recorded / size * 1e6, whole / size * 1e6


def measure(rounds: int) -> list[tuple[str, float]]:
    """Return the parts and their microseconds."""
    using, metrics = served(), Metrics()
    lookups, booster = using.bundle.lookups, using.bundle.booster
    request = REQUEST.validate_json(BODY)
    row = compute_one(request, lookups)
    risk = booster.predict_single(row)
    one = Predictions(time.time(), using, new_ids(time.time(), 1), [row], [risk], (), BODY)
    predictor = Predictor(metrics)
    predictor.journal = NoJournal()

    def count() -> None:
        metrics.model.queue(using, 0.0001, row, risk)
        metrics.http.request(PATH, "POST", "2xx", 0.0002)

    gc.freeze()  # as the service does
    parts: dict[str, Callable[[], Any]] = {
        "read and validate the JSON": lambda: REQUEST.validate_json(BODY),
        "features": lambda: compute_one(request, lookups),
        "model": lambda: booster.predict_single(row),
        "ids of the request and of the prediction": lambda: (id_of({}), new_ids(time.time(), 1)),
        "metrics": count,
        "response as JSON": one.json,
    }
    found = list(zip(parts, microseconds(list(parts.values()), rounds), strict=True))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        whole = runner.run(respond(using, rounds))
    found.append(("uvicorn's parser and protocol, ASGI, headers", whole - sum(spent for _, spent in found)))
    recorded, written = journal(one, rounds)
    return [
        *found,
        ("from the received bytes to the response's, without the journal", whole),
        ("journal, on the request's thread", recorded),
        ("journal, with the thread that writes", written),
    ]


def run(rounds: int) -> str:
    """Measure; return a table."""
    return tabulate(measure(rounds), ("part of one prediction", "µs"), floatfmt=("", ".1f"))
