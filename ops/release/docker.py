"""Docker and Compose, asked through their command lines, so that DOCKER_HOST=ssh://… works as it does for people."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from app.errors import OnTimeError

REPOSITORY = (os.environ.get("IMAGE_NAME") or "on-time").lower()  # GitHub allows capitals in names, registries do not
PROBE = Path(__file__).parents[1] / "monitoring" / "probe.py"


class EngineFailed(OnTimeError):
    """Docker or Compose is not here, or did not do what it was told."""

    exit_code = 10


def docker(*arguments: str, stdin: bytes | None = None, shown: bool = False, check: bool = True) -> str:
    """Run docker and return what it prints (or show it); raise EngineFailed with its last words."""
    if shutil.which("docker") is None:
        raise EngineFailed("docker is not here: install Docker Engine, or its command line and set DOCKER_HOST.")
    return _run(["docker", *arguments], stdin, shown, check, {})


def has_engine() -> bool:
    """Return whether an engine answers."""
    return (
        bool(shutil.which("docker"))
        and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    )


def compose(project: str, file: Path, *arguments: str, **environment: str) -> str:
    """Run Compose on a file, for a project of this name; raise EngineFailed with its last words."""
    command = [*_compose(), "--project-name", project, "--file", str(file), *arguments]
    return _run(command, None, False, True, environment)


@cache
def _compose() -> list[str]:
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise EngineFailed("Compose is not here: install Docker's Compose plugin (Debian: apt install docker-compose).")


def _run(command: list[str], stdin: bytes | None, shown: bool, check: bool, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        input=stdin,
        stdout=sys.stderr if shown else subprocess.PIPE,
        stderr=subprocess.STDOUT if shown else subprocess.PIPE,
        env=os.environ | environment,
        check=False,
    )
    if check and done.returncode:
        words = (done.stderr or b"see above").decode(errors="replace").strip().splitlines()[-3:]
        raise EngineFailed(f"`{' '.join(command[:4])} …` ended with {done.returncode}: {' '.join(words)}")
    return (done.stdout or b"").decode(errors="replace").strip()


def inspect(kind: str, name: str) -> dict[str, Any] | None:
    """Return what docker knows of an image or a container, if it knows it."""
    text = docker(kind, "inspect", name, check=False)
    found = json.loads(text or "[]")
    return dict(found[0]) if found else None


def probe(container: str, *arguments: str, key: str = "") -> dict[str, Any]:
    """Run ops/monitoring/probe.py inside a container and return its answer."""
    command = ["exec", "--interactive", "--env", f"PROBE_KEY={key}", container, "python", "-", *arguments]
    return dict(json.loads(docker(*command, stdin=PROBE.read_bytes())))
