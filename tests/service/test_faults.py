"""What may happen to a service, each on the real one with traffic; what clients lose is counted."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from app.interface import EXAMPLE
from tests.support.clients.wire import REQUEST, Load, exchange, request
from tests.support.processes import until, wait_for
from tests.support.servers.service import Service, started

pytestmark = pytest.mark.long


@contextmanager
def serving(baked: Path, **settings: object) -> Iterator[Service]:
    """Run the service on the small bundle."""
    plain = {"baked_model": baked, "journal_url": "", "request_seconds": 20}
    environment = {f"ONTIME_{name.upper()}": str(value) for name, value in (plain | settings).items()}
    with started(baked.parent, **environment) as service:
        yield service


async def under_way(load: Load, more: int = 200) -> None:
    """Wait until some more requests have been answered."""
    before = sum(load.answers.values())
    await until("requests are answered", lambda: sum(load.answers.values()) >= before + more)


async def while_loaded(load: Load, event: Callable[[], None]) -> None:
    """Do something to the service in the middle of a load."""
    task = asyncio.create_task(load.run())
    await under_way(load)
    event()
    await under_way(load)
    load.stopped = True
    await task


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_under_load_loses_no_request(baked: Path, workers: int) -> None:
    with serving(baked, drain_seconds=2, workers=workers) as service:
        load, seen = Load(service.port), []

        async def balancer() -> None:
            async with httpx.AsyncClient() as client:
                while (await client.get(f"{service.base}/readyz")).status_code == 200:
                    await asyncio.sleep(0.05)
            seen.append(sum(load.answers.values()))
            await under_way(load, 20)
            load.stopped = True

        async def run() -> None:
            looking, asking = asyncio.create_task(balancer()), asyncio.create_task(load.run())
            await under_way(load)
            service.process.send_signal(signal.SIGTERM)
            await asyncio.gather(looking, asking)

        asyncio.run(run())
        assert not load.failures and set(load.answers) == {200}
        assert load.answers[200] > seen[0] > 0  # it went on answering when it was no longer ready
        assert service.process.wait(30) == 0


def accepts(service: Service) -> bool:
    """Return whether the service accepts connections."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", service.port)) == 0


def test_sigterm_lets_a_request_in_flight_finish(baked: Path) -> None:
    async def run() -> tuple[int, bool]:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(REQUEST[:-5])
        await until("the request is in flight", lambda: service.metric("http_requests_in_progress") >= 1)
        service.process.send_signal(signal.SIGTERM)
        await until("the service is stopping", lambda: not accepts(service))
        return await exchange(reader, writer, REQUEST[-5:])

    with serving(baked) as service:
        assert asyncio.run(run())[0] == 200
        assert service.process.wait(30) == 0


def test_a_killed_worker_takes_only_its_own_requests(baked: Path) -> None:
    with serving(baked, workers=2) as service:

        def workers() -> set[int]:
            children = [child for child in psutil.Process(service.pid).children() if child.status() != "zombie"]
            return {child.pid for child in children if "spawn_main" in " ".join(child.cmdline())}

        def kill_one() -> None:
            counted_before.append(service.metric(series))
            os.kill(min(before), signal.SIGKILL)

        series = 'http_requests_total{handler="/predict",method="POST",status="2xx"}'
        before, counted_before = workers(), []
        load = Load(service.port)
        asyncio.run(while_loaded(load, kill_one))
        assert len(load.failures) <= load.connections and set(load.answers) == {200}
        wait_for("a new worker has started", lambda: len(workers()) == 2 and workers() != before)
        after = Load(service.port)
        asyncio.run(after.run(requests=200))
        assert not after.failures and set(after.answers) == {200}
        total = load.answers[200] + after.answers[200]

        def counted() -> set[float]:
            return {service.metric(series) for _ in range(8)}

        wait_for("whichever worker answers, the count is the same", lambda: len(counted()) == 1)
        # The killed worker loses what it has not counted yet; what it had in hand may be counted and not received.
        assert counted_before[0] + after.answers[200] <= counted().pop() <= total + load.connections
        wait_for("the new worker is ready", lambda: service.metric("model_ready") == 1)
        assert service.metric("http_requests_in_progress") == 0


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """Return what came until the server closed, be it by a reset because bytes were still on their way."""
    answer = b""
    try:
        while part := await reader.read(1000):
            answer += part
    except ConnectionResetError:
        pass
    return answer


@pytest.mark.long
def test_slow_clients_are_cut_off_and_hinder_nobody(baked: Path) -> None:
    async def slow(at_once: int) -> tuple[float, bytes]:
        """Send some bytes at once and then one a second, until the server has had enough."""
        started, (reader, writer) = time.monotonic(), await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(REQUEST[:at_once])
        answer = asyncio.create_task(until_closed(reader))
        for i in range(at_once, len(REQUEST)):
            if answer.done():
                break
            writer.write(REQUEST[i : i + 1])
            await asyncio.sleep(1)
        writer.close()
        return time.monotonic() - started, await answer

    async def run() -> list[tuple[float, bytes]]:
        task = asyncio.create_task(load.run())
        ends = await asyncio.gather(*(slow(at_once) for at_once in [1, len(REQUEST) - 300] * 20))
        load.stopped = True
        await task
        return ends

    with serving(baked, request_seconds=1) as service:
        load = Load(service.port, connections=4)
        ends = asyncio.run(run())
        assert max(seconds for seconds, _ in ends) < 60  # and not as many seconds as there are bytes
        assert {answer[:12] for _, answer in ends[0::2]} == {b""} and {a[:12] for _, a in ends[1::2]} == {
            b"HTTP/1.1 504"
        }
        assert not load.failures and set(load.answers) == {200}


def test_1000_idle_connections_hinder_nobody(journalled: Service) -> None:
    idle = [socket.create_connection(("127.0.0.1", journalled.port)) for _ in range(1000)]
    load = Load(journalled.port)
    asyncio.run(load.run(requests=500))
    assert not load.failures and set(load.answers) == {200}
    for connection in idle:
        connection.close()


def test_a_body_of_100_mb_is_refused_unread(journalled: Service) -> None:
    memory = psutil.Process(journalled.pid).memory_info
    before, part = memory().rss, b" " * (1 << 20)
    headers = {"Content-Type": "application/json"}
    for content in (part * 100, (part for _ in range(100))):
        assert httpx.post(f"{journalled.base}/predict", content=content, headers=headers).status_code == 413
    assert memory().rss - before < 20e6
    assert httpx.post(f"{journalled.base}/predict", json=EXAMPLE).status_code == 200


def test_thousands_of_invalid_requests(journalled: Service) -> None:
    load = Load(journalled.port, request(b'{"carrier": "\xff\xfe\xc3\x28"}'))
    asyncio.run(load.run(requests=2000))
    assert not load.failures and set(load.answers) == {400}
    assert httpx.post(f"{journalled.base}/predict", json=EXAMPLE).status_code == 200
