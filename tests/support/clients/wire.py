"""A client that keeps out of the way: requests as bytes, many connections, every answer looked at."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

from app.interface import EXAMPLE


def request(body: bytes, path: str = "/predict") -> bytes:
    """Return a POST as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


REQUEST = request(json.dumps(EXAMPLE).encode())


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes) -> tuple[int, bool]:
    """Send a request, and return the status of its answer, and whether the connection is to be kept."""
    writer.write(content)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split()[1]), b"connection: close" not in head


@dataclass
class Load:
    """Connections that ask as fast as they are answered, until a time or a number of requests is reached."""

    port: int
    content: bytes = REQUEST
    connections: int = 16
    answers: dict[int, int] = field(default_factory=dict)
    """By status."""
    failures: list[str] = field(default_factory=list)
    stopped: bool = False

    async def run(self, seconds: float = 1e9, requests: float = 1e9) -> None:
        """Send a request; a broken connection is a failure and is reopened."""
        end = time.monotonic() + seconds
        self.stopped = False

        def go_on() -> bool:
            return not self.stopped and time.monotonic() < end and sum(self.answers.values()) < requests

        async def connection() -> None:
            while go_on():
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    kept = True
                    while kept and go_on():
                        status, kept = await exchange(reader, writer, self.content)
                        self.answers[status] = self.answers.get(status, 0) + 1
                    writer.close()
                except (OSError, asyncio.IncompleteReadError) as err:
                    self.failures.append(repr(err))

        await asyncio.gather(*(connection() for _ in range(self.connections)))
