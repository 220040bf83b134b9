"""What `on-time doctor` reads besides the machine: the registry, the port, DVC's remotes, the service's settings.

What needs a package of .venv is left out while there is none.
"""

from __future__ import annotations

import json
import os
import re
import socket
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from app.environment import EnvironmentInvalid, check
from app.errors import ModelUnavailable, VersionMissing

SECONDS = 1
REMOTES = (Path(".dvc/config"), Path(".dvc/config.local"))
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}


def dvc_remotes() -> list[str]:
    """Return the names of the remotes in DVC's configuration."""
    texts = [path.read_text(encoding="utf-8") for path in REMOTES if path.exists()]
    return [name for text in texts for name in re.findall(r'^\[.*remote "(.*?)"', text, re.MULTILINE)]


def open_port(host: str, port: int) -> bool:
    """Tell whether something listens there."""
    with suppress(OSError), socket.create_connection((host, port), SECONDS):
        return True
    return False


def answer(port: int) -> str:
    """Return what answers on a port of this machine; empty if it is free."""
    if not open_port("127.0.0.1", port):
        return ""
    with suppress(OSError, ValueError, KeyError, TypeError):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/version", timeout=SECONDS) as response:
            model = json.load(response)["model"]
        return f"this service answers, with version {model['version']} of {model['name']}"
    return "another program listens"


def registry() -> tuple[bool, str, str]:
    """Return whether a version is Production, what is known of the registry, and the command that helps."""
    try:
        from app.interface import NAME  # pylint: disable=import-outside-toplevel # needs .venv
        from app.registry.address import sqlite_file, without_password  # pylint: disable=import-outside-toplevel
        from app.settings import DEFAULT_TRACKING_URI  # pylint: disable=import-outside-toplevel
    except ImportError:
        return False, "unknown without .venv", "make repro"
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI
    where, file, address = without_password(uri), sqlite_file(uri), urlsplit(uri)
    if file and not file.exists():
        return False, f"{where} does not exist yet", "make repro"
    port = 0 if file else address.port or PORTS.get(address.scheme.partition("+")[0], 0)
    if port and not open_port(address.hostname or "", port):
        return False, f"{where} is unreachable", "env -u MLFLOW_TRACKING_URI make repro"
    try:
        versions = {alias: _version(uri, NAME, alias) for alias in ("production", "staging")}
    except ModelUnavailable as err:
        return False, str(err), f"curl {where}/version"
    text = ", ".join(f"{alias.capitalize()} is {version or 'no version'}" for alias, version in versions.items())
    return bool(versions["production"]), f"{text} of {NAME} in {where}", f"make {_next(versions)}"


def _version(uri: str, name: str, alias: str) -> str | None:
    from app.registry import alias as aliases  # pylint: disable=import-outside-toplevel # needs .venv

    try:
        found = aliases.find(uri, name, alias)
    except VersionMissing:
        return None
    return found.version if found else None


def _next(versions: dict[str, str | None]) -> str:
    return "promote" if versions["staging"] else "repro"


def invalid_settings() -> str:
    """Return what is wrong with an inherited variable; empty if all can be honoured."""
    try:
        check()
        from app.settings import Settings  # pylint: disable=import-outside-toplevel # needs .venv

        Settings.read()
    except EnvironmentInvalid as err:
        return str(err)
    except ImportError:
        return ""
    return ""
