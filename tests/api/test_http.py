"""HTTP as clients, proxies and probes speak it; each on the real server, as bytes where a client library interferes."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from app.interface import EXAMPLE
from tests.conftest import bake
from tests.support.processes import wait_for
from tests.support.service import Service, Start, started

BODY = json.dumps(EXAMPLE).encode()
JSON = {"Content-Type": "application/json"}
UPGRADES = [
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
    "Connection: keep-alive, upgrade\r\nupgrade: TLS/1.3, h2c",
]
"""What curl and Java's HttpClient send."""


@pytest.fixture(scope="module")
def plain(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on the small bundle."""
    folder = tmp_path_factory.mktemp("plain")
    baked = str(bake(bundle_dir, "7", folder / "baked"))
    with started(folder, ONTIME_BAKED_MODEL=baked, ONTIME_JOURNAL_URL="none") as service:
        yield service


def request(headers: str, body: bytes = BODY, line: str = "POST /predict HTTP/1.1") -> bytes:
    """Return a request as bytes."""
    return f"{line}\r\nHost: x\r\nContent-Type: application/json\r\n{headers}\r\n\r\n".encode() + body


def talk(port: int, *pieces: bytes, answers: int = 1) -> list[tuple[int, bytes]]:
    """Send pieces of bytes on one connection; return status and body of each answer."""
    found = []
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client, client.makefile("rb") as reader:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
        for _ in range(answers):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += reader.readline() or pytest.fail(f"the connection ended after {head!r}")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            found.append((int(head.split()[1]), reader.read(int(length[1]) if length else 0)))
    return found


@pytest.mark.parametrize("upgrade", UPGRADES)
def test_an_offered_upgrade_is_declined_and_the_body_is_read(plain: Service, upgrade: str) -> None:
    sent = request(f"{upgrade}\r\nContent-Length: {len(BODY)}")
    chunked = request(f"{upgrade}\r\nTransfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY))
    head = len(sent) - len(BODY)
    for pieces in ([sent], [chunked], [sent[:head], sent[head:]], [sent[i : i + 7] for i in range(0, len(sent), 7)]):
        status, content = talk(plain.port, *pieces)[0]
        assert status == 200 and "probability" in json.loads(content)
    last = request(f"Content-Length: {len(BODY)}")
    assert [status for status, _ in talk(plain.port, sent + sent + last + last, answers=4)] == [200] * 4
    assert talk(plain.port, request(upgrade, b"", "GET /livez HTTP/1.1")) == [(200, b'{"status":"live"}')]
    status, content = talk(plain.port, request(f"{upgrade}\r\nContent-Length: 2", b"{}"))[0]
    assert status == 422 and json.loads(content)["errors"][0]["message"] == "Field required"


def test_a_head_without_end_is_refused(plain: Service) -> None:
    with socket.create_connection(("127.0.0.1", plain.port), timeout=8) as client:  # less than slow heads have
        with suppress(ConnectionError):  # the answer is lost if more data were on their way
            client.sendall(b"GET /livez HTTP/1.1\r\nX: " + b"x" * 400_000)
            assert client.recv(12) == b"HTTP/1.1 431"
    status, _ = talk(plain.port, request("X: " + "x" * 30_000, b"", "GET /livez HTTP/1.1"))[0]
    assert status == 200


@pytest.mark.long
def test_a_body_without_end_is_not_read_for_ever_after_its_answer(plain: Service) -> None:
    with socket.create_connection(("127.0.0.1", plain.port), timeout=20) as client:
        client.sendall(request(f"Content-Length: {1 << 40}", b""))
        assert client.recv(12) == b"HTTP/1.1 413"
        ends = time.monotonic() + 60
        with pytest.raises(ConnectionError):
            while time.monotonic() < ends:
                client.sendall(b" " * 4096)
                time.sleep(0.01)


def test_trailers_are_no_headers(plain: Service) -> None:
    chunks = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
    sent = request("Transfer-Encoding: chunked", chunks + b"Content-Type: application/json\r\n\r\n")
    sent = sent.replace(b"application/json", b"text/plain", 1)
    assert talk(plain.port, sent[:-40], sent[-40:])[0][0] == 415
    many = chunks + b"X-Trailer: some text\r\n" * 20_000 + b"\r\n"
    before = psutil.Process(plain.pid).memory_info().rss
    assert [s for s, _ in talk(plain.port, *[request("Transfer-Encoding: chunked", many)] * 2, answers=2)] == [200] * 2
    assert psutil.Process(plain.pid).memory_info().rss - before < 4 * len(many)


def test_pipelined_requests_are_answered_in_order_and_a_flood_of_them_ends_the_connection(plain: Service) -> None:
    one = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    assert talk(plain.port, one * 500, answers=500) == [(200, b'{"status":"live"}')] * 500
    with socket.create_connection(("127.0.0.1", plain.port), timeout=20) as client, pytest.raises(ConnectionError):
        while True:
            client.sendall(one * 1000)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/version", "/openapi.json", "/docs", "/metrics", "/nowhere"])
def test_head_is_get_without_a_body(plain: Service, path: str) -> None:
    with httpx.Client(base_url=plain.base) as client:
        got, head = client.get(path), client.head(path)
        again = client.get("/livez")  # on the same connection: no byte of a body was sent
    assert head.status_code == got.status_code and head.content == b"" and again.json() == {"status": "live"}
    vary = {"x-request-id", "date"} | ({"content-length"} if path == "/metrics" else set())
    assert [item for item in head.headers.items() if item[0] not in vary] == [
        item for item in got.headers.items() if item[0] not in vary
    ]


def test_head_is_405_where_get_is(plain: Service) -> None:
    head = httpx.head(f"{plain.base}/predict")
    assert (head.status_code, head.headers["Allow"], head.content) == (405, "POST", b"")


@pytest.mark.parametrize("path", ["/predict/", "/livez/", "/docs/", "/static-offline-docs"])
def test_no_slash_is_added_or_removed_by_a_redirect(plain: Service, path: str) -> None:
    answer = httpx.get(plain.base + path, headers={"Host": "elsewhere"})
    assert answer.status_code == 404 and "Location" not in answer.headers
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "accepted"),
    [("/predict", "application/json"), ("/predict/batch", "application/json, application/vnd.apache.arrow.stream")],
)
@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x/y+z"]
)
def test_another_media_type_is_415_with_the_right_one(plain: Service, path: str, accepted: str, kind: str) -> None:
    answer = httpx.post(plain.base + path, content=BODY, headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 415 and answer.headers["Accept"] == accepted
    assert "must be application/json" in answer.json()["detail"] and (kind or "missing") in answer.json()["detail"]


@pytest.mark.parametrize("kind", ["application/json;charset=UTF-8", "application/vnd.api+json", "Application/JSON"])
def test_all_forms_of_json_are_read(plain: Service, kind: str) -> None:
    assert httpx.post(f"{plain.base}/predict", content=BODY, headers={"Content-Type": kind}).status_code == 200


def test_a_compressed_body_is_415(plain: Service) -> None:
    answer = httpx.post(
        f"{plain.base}/predict", content=gzip.compress(BODY), headers=JSON | {"Content-Encoding": "gzip"}
    )
    assert answer.status_code == 415 and answer.headers["Accept-Encoding"] == "identity" and "gzip" in answer.text


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (BODY[:-1] + b",}", f"at byte {len(BODY)} (line 1, column {len(BODY) + 1})"),
        (b'{"carrier": "UA",\n "origin" "EWR"}', "at byte 28 (line 2, column 11)"),
        ('{"ä": 1,\n,}'.encode(), "at byte 10 (line 2, column 1)"),
        (BODY + b"\n" + BODY, f"at byte {len(BODY) + 1} (line 2, column 1)"),
        (b"{'carrier': 'UA'}", "at byte 1 (line 1, column 2)"),
    ],
)
def test_what_is_not_json_is_located(plain: Service, body: bytes, where: str) -> None:
    answer = httpx.post(f"{plain.base}/predict", content=body, headers=JSON)
    assert answer.status_code == 422 and f"not JSON: {where}" in answer.json()["detail"]
    assert [error["field"] for error in answer.json()["errors"]] == ["body"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b'{"carrier": "\xfc"}', "UTF-8"), (b"[" * 10_000, "nested too deeply"), (b"9" * 5000, "too many digits")],
)
def test_what_no_parser_can_read_is_400_with_the_reason(plain: Service, body: bytes, reason: str) -> None:
    answer = httpx.post(f"{plain.base}/predict", content=body, headers=JSON)
    assert answer.status_code == 400 and reason in answer.json()["detail"]


def test_a_client_that_leaves_within_its_body_is_neither_served_nor_an_error(plain: Service) -> None:
    counts = 'http_requests_total{handler="/predict",method="POST",status="%s"}'
    before = {status: plain.metric(counts % status) for status in ("2xx", "4xx", "5xx")}
    for body in (BODY, BODY[:20]):
        with socket.create_connection(("127.0.0.1", plain.port)) as client:
            client.sendall(request(f"Content-Length: {len(BODY) + 100}", body))
    wait_for("both are counted", lambda: plain.metric(counts % "4xx") == before["4xx"] + 2, 20)
    assert [plain.metric(counts % status) - before[status] for status in ("2xx", "5xx")] == [0, 0]
    assert "Traceback" not in plain.process.output()


def test_the_path_of_a_request_is_cut_in_the_log(plain: Service) -> None:
    assert httpx.get(f"{plain.base}/{'x' * 20_000}").status_code == 404
    assert max(map(len, plain.process.output().splitlines())) < 2000


@contextmanager
def proxy(base: str, prefix: str, strip: bool) -> Iterator[str]:
    """Run a reverse proxy that exposes a service under a prefix, and with `strip` removes it; return its address."""

    class Forward(BaseHTTPRequestHandler):
        """Forwards a request without its Host."""

        def do_GET(self) -> None:  # pylint: disable=invalid-name # http.server's
            """Forward any method."""
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.removeprefix(prefix) if strip else self.path
            headers = {name: value for name, value in self.headers.items() if name != "Host"}
            answer = httpx.request(self.command, base + path, content=content, headers=headers)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:  # pylint: disable=arguments-differ
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Forward) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}{prefix}"
        server.shutdown()


@pytest.mark.long
def test_under_a_prefix_everything_is_found_whether_the_proxy_strips_it_or_not(start: Start, baked: Path) -> None:
    service = start(baked_model=baked, journal_url="", root_path="/models/risk")
    for strip in (True, False):
        with proxy(service.base, "/models/risk", strip) as base:
            page = httpx.get(f"{base}/docs").text
            linked = re.findall(r"""(?:url: |src=|href=)['"](/[^'"]+)['"]""", page)
            assert "/models/risk/openapi.json" in linked and len(linked) >= 3
            for path in linked:
                assert httpx.get(base.removesuffix("/models/risk") + path).status_code == 200, path
            assert httpx.get(f"{base}/openapi.json").json()["servers"] == [{"url": "/models/risk"}]
            for query in ("", "?explain=false"):
                assert httpx.post(f"{base}/predict{query}", json=EXAMPLE).status_code == 200
            assert httpx.post(f"{base}/predict", content=b" " * ((1 << 20) + 1), headers=JSON).status_code == 413
            assert httpx.get(f"{base}/livez").status_code == 200 and httpx.get(f"{base}/risk").status_code == 404
    assert service.metric('http_requests_total{handler="/predict",method="POST",status="2xx"}') == 4
