"""`python -m app`: the service on its own."""

from __future__ import annotations

import socket
import sys

import uvicorn
from pydantic import ValidationError

from app.main import create_app
from app.settings import Settings


def main() -> None:
    """Serve until told to stop; a wrong setting or a port that is taken ends with what to do."""
    try:
        settings = Settings()
    except ValidationError as err:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in err.errors())
        sys.exit(f"error: the environment has a wrong setting (ONTIME_…): {wrong}. app/settings.py lists them.")
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as err:
        reason = f"{settings.host}:{settings.port} cannot be listened on: {err.strerror}"
        sys.exit(f"error: {reason}. Choose another port: `make serve PORT={settings.port + 1}`.")
    host, port = listener.getsockname()
    print(f"On-time: http://{host}:{port}/docs", flush=True)
    uvicorn.Server(uvicorn.Config(create_app(settings), log_level=settings.log_level)).run(sockets=[listener])


if __name__ == "__main__":
    main()
