"""`on-time bench request`: where the microseconds of one prediction go, in this process.

The parts are called one after another, as app/api/fast_path.py calls them: in a loop of its own, a part finds all that
it needs in the processor's caches, and takes half the time. What is left of the processor time of a request under load
(`on-time bench serving`) is the server's and the operating system's: protocol, sockets and the event loop.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.types import Message
from tabulate import tabulate

from app.api.answers import json_single
from app.api.application import create_app
from app.api.edge.bodies import REQUEST
from app.api.edge.middleware import id_of
from app.api.fast_path import PATH, FastPath
from app.interface import EXAMPLE, compute_one
from app.model.prediction import Predictions, new_ids
from app.model.served import ServedModel
from app.settings import Settings
from ops.studies.speed.serving import bake

CALLS = 5000
BODY = json.dumps(EXAMPLE).encode()
SCOPE = {
    "type": "http",
    "path": PATH,
    "method": "POST",
    "query_string": b"",
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))],
}


def microseconds(calls: list[Callable[[], Any]]) -> list[float]:
    """Return the time per call, µs, of calls one after another."""
    sums = [0.0] * len(calls)
    for _ in range(CALLS):
        before = time.thread_time()
        for i, call in enumerate(calls):
            call()
            after = time.thread_time()
            sums[i] += after - before
            before = after
    return [spent / CALLS * 1e6 for spent in sums]


def parts_of(served: ServedModel) -> dict[str, Callable[[], Any]]:
    """Return the parts of a prediction as calls."""
    request, lookups, booster = REQUEST.validate_json(BODY), served.bundle.lookups, served.bundle.booster
    row = compute_one(request, lookups)
    one = Predictions(time.time(), served, new_ids(time.time(), 1), [row], [booster.predict_single(row)], (), BODY)
    return {
        "read and validate the JSON": lambda: REQUEST.validate_json(BODY),
        "features": lambda: compute_one(request, lookups),
        "model": lambda: booster.predict_single(row),
        "ids of the request and of the prediction": lambda: (id_of({}), new_ids(time.time(), 1)),
        "response as JSON": lambda: json_single(one),
    }


async def measure_parts(folder: Path, rounds: int) -> list[tuple[str, float]]:
    """Return the parts, and the sums for the thread that responds and for the threads that count and record."""
    statuses = []

    async def receive() -> Message:
        return {"type": "http.request", "body": BODY}

    async def send(message: Message) -> None:
        statuses.append(message.get("status", 200))

    journal = f"sqlite:///{folder}/journal.db"
    app = create_app(Settings(baked_model=bake(folder), journal_url=journal, journal_queue=CALLS * rounds))
    respond = FastPath(app)
    async with app.router.lifespan_context(app):
        while app.state.served is None:
            await asyncio.sleep(0.1)
        parts = parts_of(app.state.served)
        taken = [microseconds(list(parts.values())) for _ in range(rounds)]
        table = list(zip(parts, map(statistics.median, zip(*taken, strict=True)), strict=True))
        own, whole = time.thread_time(), time.process_time()
        for _ in range(CALLS * rounds):
            await respond(SCOPE, receive, send)
        own = (time.thread_time() - own) / (CALLS * rounds) * 1e6
    whole = (time.process_time() - whole) / (CALLS * rounds) * 1e6  # with the last blocks of the journal
    if set(statuses) != {200}:
        raise RuntimeError(f"requests were answered with {set(statuses)}")
    table.append(("ASGI, headers, counters, the journal's queue", own - sum(spent for _, spent in table)))
    return [*table, ("a request, on the thread that answers", own), ("journal and metrics, other threads", whole - own)]


def measure_request(rounds: int) -> str:
    """Measure; return a table."""
    with tempfile.TemporaryDirectory() as folder:
        table = asyncio.run(measure_parts(Path(folder), rounds))
    return tabulate(table, ("part of one prediction", "µs"), floatfmt=("", ".1f"))
