"""`on-time release ssh`: let `ssh`, and so docker, reach a machine with the key DEPLOY_KEY, and only one that is known.

A workflow gives both by its environment; the key is written for its owner alone, and never printed.
"""

import os
from pathlib import Path

from app.errors import OnTimeError

NAME = "on-time"
BLOCK = """
Host {machine}
  IdentityFile {folder}/id_{NAME}
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts_{NAME}
  StrictHostKeyChecking yes
"""


class AccessRefused(OnTimeError):
    """A machine cannot be reached as it must be: with a key of its own, and known by its host key."""


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text.strip() + "\n")


def grant(host: str, key: str, known_hosts: str, folder: Path) -> str:
    """Write key, host key and settings for a machine to ssh's folder; return what was done."""
    machine = host.removeprefix("ssh://").rpartition("@")[2]
    for name, value in (("the secret DEPLOY_KEY", key), ("the variable DEPLOY_KNOWN_HOSTS", known_hosts)):
        if not value.strip():
            raise AccessRefused(f"{host} needs {name} of the environment; docs/github.md describes it.")
    folder.mkdir(mode=0o700, exist_ok=True)
    _write(folder / f"id_{NAME}", key)
    _write(folder / f"known_hosts_{NAME}", known_hosts)
    block, config = BLOCK.format(machine=machine, folder=folder, NAME=NAME), folder / "config"
    known = config.read_text(encoding="utf-8") if config.exists() else ""
    if block not in known:
        config.write_text(known + block, encoding="utf-8")
    return f"ssh reaches {machine} with the key of this environment."


def write_access(host: str) -> str:
    """Grant it for user@machine by the environment's key; do nothing without a machine."""
    if not host:
        return "No machine is named: docker uses the engine of its own settings."
    key, known_hosts = os.environ.get("DEPLOY_KEY", ""), os.environ.get("DEPLOY_KNOWN_HOSTS", "")
    return grant(host, key, known_hosts, Path.home() / ".ssh")
