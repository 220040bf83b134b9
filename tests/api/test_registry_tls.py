"""A registry with a private certificate: the service applies MLflow's own variables to every request."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import wait_for
from tests.support.service import started

pytestmark = pytest.mark.long


class Empty(http.server.BaseHTTPRequestHandler):
    """A registry without a model."""

    def do_GET(self) -> None:  # pylint: disable=invalid-name
        """Answer that the model does not exist."""
        body = b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such model"}'
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """The address of an empty registry whose certificate is its own."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    options = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *options], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("name", "value", "logged"),
    [
        ("MLFLOW_TRACKING_SERVER_CERT_PATH", "certificate.pem", "no version of flight-delay is production"),
        ("MLFLOW_TRACKING_INSECURE_TLS", "true", "no version of flight-delay is production"),
        ("MLFLOW_TRACKING_TOKEN", "secret", "CERTIFICATE_VERIFY_FAILED"),
    ],
)
def test_a_private_certificate_is_accepted_where_mlflow_is_told_so(
    name: str, value: str, logged: str, registry: str, tmp_path: Path
) -> None:
    variables = {name: value, "MLFLOW_TRACKING_URI": registry, "ONTIME_JOURNAL_URL": "none"}
    with started(tmp_path, "livez", **variables) as service:
        wait_for(logged, lambda: logged in service.process.output(), 60, service.process.output)
