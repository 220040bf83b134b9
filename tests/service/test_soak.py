"""Many connections for a while, and memory that does not grow. `on-time ci soak` does it at full length."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from tests.support.clients.wire import Load
from tests.support.servers.service import Start

SECONDS = float(os.environ.get("SOAK_SECONDS", "5"))
REQUESTS = int(os.environ.get("SOAK_REQUESTS", "4000"))
CONNECTIONS = 300


@pytest.mark.long
def test_300_connections_do_not_grow_memory(start: Start, baked: Path) -> None:
    service = start(baked_model=baked, journal_url="sqlite:///journal.db", request_seconds=20)
    process = psutil.Process(service.pid)
    crowd = Load(service.port, connections=CONNECTIONS)
    asyncio.run(crowd.run(seconds=SECONDS))
    assert not crowd.failures and set(crowd.answers) == {200} and crowd.answers[200] > CONNECTIONS
    before = process.memory_info().rss
    more = Load(service.port)
    asyncio.run(more.run(requests=REQUESTS))
    growth = process.memory_info().rss / before - 1
    print(
        f"{crowd.answers[200]} requests on {CONNECTIONS} connections without an error, {before / 1e6:.0f} MB; ", end=""
    )
    print(f"{more.answers[200]} requests later {growth:+.1%}")
    assert not more.failures and growth < 0.05
