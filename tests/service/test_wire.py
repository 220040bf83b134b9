"""What only a real server shows: requests in pieces, pipelined, with an upgrade or trailers, and clients that leave."""

from __future__ import annotations

import json
import re
import socket
import time
from contextlib import suppress

import psutil
import pytest

from app.interface import EXAMPLE
from tests.support.processes import wait_for
from tests.support.servers.service import Service

BODY = json.dumps(EXAMPLE).encode()
UPGRADES = [
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
    "Connection: keep-alive, upgrade\r\nupgrade: TLS/1.3, h2c",
]
"""What curl and Java's HttpClient send."""
COUNTED = 'http_requests_total{handler="/predict",method="POST",status="%s"}'


def request(*headers: str, body: bytes = BODY, line: str = "POST /predict HTTP/1.1") -> bytes:
    """Return a request as bytes; its length is given unless it is chunked."""
    lines = [line, "Host: x", "Content-Type: application/json", *headers]
    if not any(header.startswith(("Content-Length", "Transfer-Encoding")) for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


PLAIN, LIVE = request(), request(body=b"", line="GET /livez HTTP/1.1")


def talk(service: Service, *pieces: bytes, responses: int = 1) -> list[tuple[int, bytes]]:
    """Send pieces of bytes on one connection; return status and body of each response."""
    found = []
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as client, client.makefile("rb") as reader:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
        for _ in range(responses):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += reader.readline() or pytest.fail(f"the connection ended after {head!r}")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            found.append((int(head.split()[1]), reader.read(int(length[1]) if length else 0)))
    return found


def chunked(trailers: bytes = b"") -> bytes:
    """Return a chunked request, with trailers."""
    return request("Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(BODY), BODY, trailers))


@pytest.mark.parametrize(
    ("content", "statuses"),
    [
        (request(line="POST /predict HTTP/1.0"), [200]),
        (request("Expect: 100-continue"), [100, 200]),
        (request("Connection: close"), [200]),
        (request(line="POST /pr%65dict HTTP/1.1"), [200]),
        (chunked(b"X-Trailer: text\r\n"), [200]),
        (chunked(b"Content-Type: application/json\r\n").replace(b"application/json", b"text/plain", 1), [415]),
    ],
)
def test_unusual_requests(journalled: Service, content: bytes, statuses: list[int]) -> None:
    responses = talk(journalled, content, responses=len(statuses))
    assert [status for status, _ in responses] == statuses
    assert statuses == [415] or b"probability" in responses[-1][1]


def test_what_is_not_http_gets_problem_details(journalled: Service) -> None:
    status, body = talk(journalled, b"GET / HTTP/1.1\r\nbad header\r\n\r\n", responses=1)[0]
    assert status == json.loads(body)["status"] == 400


@pytest.mark.parametrize("cut", [1, 30, len(PLAIN) - len(BODY), len(PLAIN) - 1])
def test_a_request_in_pieces_and_the_next_one(journalled: Service, cut: int) -> None:
    for second in (PLAIN, LIVE):
        assert [s for s, _ in talk(journalled, PLAIN[:cut], PLAIN[cut:] + second, responses=2)] == [200, 200]


def test_pipelined_requests_are_answered_in_order(journalled: Service) -> None:
    sent = PLAIN + request(line="GET /version HTTP/1.1", body=b"") + PLAIN + request(body=b"{}") + PLAIN + LIVE * 300
    before = journalled.metric(COUNTED % "2xx")
    responses = talk(journalled, sent, responses=305)
    assert [status for status, _ in responses] == [200, 200, 200, 422, 200] + [200] * 300
    assert [b"probability" in content for _, content in responses[:5]] == [True, False, True, False, True]
    assert journalled.metric(COUNTED % "2xx") == before + 3


def test_a_flood_of_pipelined_requests(journalled: Service) -> None:
    address = ("127.0.0.1", journalled.port)
    with socket.create_connection(address, timeout=20) as client, pytest.raises(ConnectionError):
        while True:
            client.sendall(LIVE * 1000)


@pytest.mark.parametrize("upgrade", UPGRADES)
def test_an_offered_upgrade_is_declined(journalled: Service, upgrade: str) -> None:
    sent = request(upgrade)
    head = len(sent) - len(BODY)
    in_chunks = chunked().replace(b"Host: x", b"Host: x\r\n" + upgrade.encode())
    for pieces in ([sent], [in_chunks], [sent[:head], sent[head:]], [sent[i : i + 7] for i in range(0, len(sent), 7)]):
        status, content = talk(journalled, *pieces)[0]
        assert status == 200 and "probability" in json.loads(content)
    assert [s for s, _ in talk(journalled, sent + sent + PLAIN + PLAIN, responses=4)] == [200] * 4
    status, content = talk(journalled, request(upgrade, body=b"{}"))[0]
    assert status == 422 and json.loads(content)["errors"][0]["message"] == "Field required"


def test_a_head_without_end_is_refused(journalled: Service) -> None:
    with socket.create_connection(("127.0.0.1", journalled.port), timeout=8) as client:  # less than slow heads have
        with suppress(ConnectionError):  # the answer is lost if more data were on their way
            client.sendall(b"GET /livez HTTP/1.1\r\nX: " + b"x" * 400_000)
            assert client.recv(12) == b"HTTP/1.1 431"
    assert talk(journalled, request("X: " + "x" * 30_000, body=b"", line="GET /livez HTTP/1.1"))[0][0] == 200


def test_trailers_are_not_kept(journalled: Service) -> None:
    many = chunked(b"X-Trailer: some text\r\n" * 20_000)
    before = psutil.Process(journalled.pid).memory_info().rss
    assert [status for status, _ in talk(journalled, many, many, responses=2)] == [200, 200]
    assert psutil.Process(journalled.pid).memory_info().rss - before < 4 * len(many)


def test_a_client_that_leaves_within_its_body(journalled: Service) -> None:
    before = [journalled.metric(COUNTED % status) for status in ("2xx", "4xx", "5xx")]
    for body in (BODY, BODY[:20]):
        with socket.create_connection(("127.0.0.1", journalled.port)) as client:
            client.sendall(request(f"Content-Length: {len(BODY) + 100}", body=body))
    wait_for("both are counted", lambda: journalled.metric(COUNTED % "4xx") == before[1] + 2, 20)
    after = [journalled.metric(COUNTED % status) for status in ("2xx", "4xx", "5xx")]
    assert after == [before[0], before[1] + 2, before[2]]
    assert "Traceback" not in journalled.process.output()


@pytest.mark.long
def test_a_body_without_end_after_its_response(journalled: Service) -> None:
    with socket.create_connection(("127.0.0.1", journalled.port), timeout=20) as client:
        client.sendall(request(f"Content-Length: {1 << 40}", body=b""))
        assert client.recv(12) == b"HTTP/1.1 413"
        ends = time.monotonic() + 60
        with pytest.raises(ConnectionError):
            while time.monotonic() < ends:
                client.sendall(b" " * 4096)
                time.sleep(0.01)
