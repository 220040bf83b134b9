"""`python -m app`: run the service."""

from __future__ import annotations

import logging.config
import os
import signal
import socket
import sys
import tempfile

import uvicorn
from uvicorn.supervisors import Multiprocess

from app.api import cpus
from app.environment import EnvironmentInvalid
from app.logs import configuration
from app.settings import WORKERS_FOLDER, Settings


def main() -> None:
    """Run the service until it is stopped; exit with one error line if a setting is invalid or the port is in use."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises the signal again after its shutdown
    try:
        logging.config.dictConfig(configuration("info"))
        settings = Settings.read()
    except EnvironmentInvalid as err:
        print(f"error: {err} docs/environment.md lists what is read.", file=sys.stderr)
        sys.exit(err.exit_code)
    os.environ.setdefault("OMP_NUM_THREADS", str(cpus.available()))  # before LightGBM is loaded
    listener = _listen(settings)
    logging.config.dictConfig(configuration(settings.log_level))
    host, port = listener.getsockname()
    logging.getLogger("app").info("listening on http://%s:%d, see /docs", host, port)
    config = uvicorn.Config(
        "app.api.application:create_app",
        factory=True,
        workers=settings.workers,
        log_config=configuration(settings.log_level),
        access_log=False,
        server_header=False,
        http="app.api.protocol:HeadTimeout",
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


def _listen(settings: Settings) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as err:
        reason = f"cannot listen on {settings.host}:{settings.port}: {err.strerror}"
        sys.exit(f"error: {reason}. Choose another port: `make serve PORT={settings.port + 1}`.")
    listener.set_inheritable(True)
    return listener


if __name__ == "__main__":
    main()
