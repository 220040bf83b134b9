"""An inbox that cannot be listed is an error, and never an empty one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ops.data import add, inbox
from stages.base.errors import DataInvalid

ERRORS = {"missing": (404, "NoSuchBucket"), "forbidden": (403, "AccessDenied")}


class Answer(BaseHTTPRequestHandler):
    """The errors of an object store, by the name of the bucket."""

    def do_GET(self) -> None:  # pylint: disable=invalid-name
        """Answer as S3 does."""
        status, code = ERRORS[self.path.split("/")[1].partition("?")[0]]
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:  # pylint: disable=invalid-name
        """Answer that there is no such object."""
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:  # pylint: disable=arguments-differ
        """Print nothing."""


@pytest.fixture(name="store")
def object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server with these errors, which is the object store of this process."""
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setattr(add, "WORK", tmp_path)
        yield
        server.shutdown()


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("url", ["s3://missing/inbox", "s3://forbidden/inbox", "https://team:secret@127.0.0.1:1/inbox"])
def test_inbox_that_cannot_be_listed(url: str) -> None:
    with pytest.raises(DataInvalid, match="cannot be read: .*Correct --inbox") as caught:
        inbox.collect_files(url)
    assert "secret" not in str(caught.value)
