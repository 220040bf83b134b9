"""`python -m app`: run the service."""

from __future__ import annotations

import errno
import logging.config
import os
import signal
import socket
import sys
import tempfile

import uvicorn
from uvicorn.supervisors import Multiprocess

from app import cpus, environment
from app.environment import EnvironmentInvalid
from app.errors import OnTimeError
from app.logs import configuration

try:
    from app.settings import WORKERS_FOLDER, Settings
except OnTimeError as missing:  # the problem lacks a name
    sys.exit(f"error: {missing}")


def main() -> None:
    """Run the service until it is stopped; exit with one error line if a setting is invalid or the port is in use."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises the signal again after its shutdown
    try:
        environment.apply()
        logging.config.dictConfig(configuration("info"))
        settings = Settings.read()
    except EnvironmentInvalid as err:
        print(f"error: {err} docs/environment.md lists what is read.", file=sys.stderr)
        sys.exit(err.exit_code)
    os.environ.setdefault("OMP_NUM_THREADS", str(cpus.available()))  # before LightGBM is loaded
    listener = listen(settings)
    logging.config.dictConfig(configuration(settings.log_level))
    address = _address(*listener.getsockname()[:2])
    logging.getLogger("app").info("listening on http://%s, see %s/docs", address, settings.root_path)
    config = uvicorn.Config(
        "app.api.application:create_service",
        factory=True,
        workers=settings.workers,
        log_config=configuration(settings.log_level),
        access_log=False,
        server_header=False,
        proxy_headers=False,  # neither the client's address nor the scheme is used
        http="app.api.edge.protocol:Protocol",
        ws="none",
        backlog=2048,
        timeout_keep_alive=75,  # longer than that of proxies, or they would reuse closing connections
    )
    if settings.workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
        return
    with tempfile.TemporaryDirectory() as folder:  # prometheus_client requires an empty folder at every start
        os.environ[WORKERS_FOLDER] = folder
        Multiprocess(config, sockets=[listener]).run()


def listen(settings: Settings) -> socket.socket:
    """Return a bound socket, of IPv6 if the host is an IPv6 address; `::` accepts IPv4 too."""
    host, port = settings.host.removeprefix("[").removesuffix("]"), settings.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)  # a name with both: IPv4
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        listener.bind(address)
    except (OSError, UnicodeError) as err:
        reason = f"cannot listen on {_address(host, port)}: {getattr(err, 'strerror', None) or err}"
        sys.exit(f"error: {reason}. {advice(err, port)}")
    listener.set_inheritable(True)
    return listener


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def advice(err: Exception, port: int) -> str:
    """Return advice for an error raised by `listen`."""
    number = getattr(err, "errno", None)
    if number == errno.EADDRINUSE:
        other = port + 1 if port < 65535 else 8000
        return f"Choose another port: `make serve PORT={other}`."
    if number in (errno.EACCES, errno.EPERM):
        return "Ports below 1024 need privileges; choose another one: `make serve PORT=8000`."
    return "Set ONTIME_HOST to an address of this machine: 127.0.0.1, ::1, or 0.0.0.0 and :: for all."


if __name__ == "__main__":
    main()
