"""The Docker engine, through python-on-whales; Compose and builds, whose free options it does not take, by command.

Both run Docker's command line, so DOCKER_HOST=ssh://… reaches another machine.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from python_on_whales import Container, docker
from python_on_whales.client_config import ClientNotFoundError
from python_on_whales.exceptions import DockerException

from app.errors import OnTimeError

REPOSITORY = (os.environ.get("IMAGE_NAME") or "on-time").lower()  # GitHub allows capitals in names, registries do not
PROJECT = os.environ.get("COMPOSE_PROJECT_NAME") or "on-time"
NO_CLIENT = "docker is not installed: install Docker Engine, or its command line and set DOCKER_HOST."
NO_COMPOSE = "Compose is not installed: install Docker's Compose plugin (Debian: apt install docker-compose)."
BY_DIGEST = re.compile(r".+@sha256:[0-9a-f]{64}")
PROBE = Path(__file__).with_name("probe.py")


class EngineFailed(OnTimeError):
    """Docker or Compose is not installed, or one of its commands failed."""


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turn Docker's errors into EngineFailed, with the end of its output; also usable as a decorator."""
    try:
        yield
    except ClientNotFoundError as err:
        raise EngineFailed(NO_CLIENT) from err
    except DockerException as err:
        raise _failed(err.docker_command, err.return_code, err.stderr) from err


def _failed(command: Sequence[str], code: int, stderr: str | None) -> EngineFailed:
    message = (stderr or "see above").strip().splitlines()[-3:]
    return EngineFailed(f"`{' '.join(map(str, command[:4]))} …` ended with {code}: {' '.join(message)}")


def compose(project: str, file: Path, *arguments: str, **environment: str) -> str:
    """Run Compose, the plugin or version 1, for a project of this name; return its output."""
    command = [*_compose(), "--project-name", project, "--file", str(file), *arguments]
    return execute(command, environment)


@cache
def _compose() -> list[str]:
    if docker.compose.is_installed():
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise EngineFailed(NO_COMPOSE)


def execute(command: list[str], environment: Mapping[str, str] | None = None, shown: bool = False) -> str:
    """Run a command of Docker and return its output, or show it; raise EngineFailed with the end of its output."""
    out = sys.stderr if shown else subprocess.PIPE
    err = subprocess.STDOUT if shown else subprocess.PIPE
    env = os.environ | dict(environment or {})
    try:
        done = subprocess.run(command, stdout=out, stderr=err, env=env, text=True, errors="replace", check=False)
    except FileNotFoundError as missing:
        raise EngineFailed(NO_CLIENT) from missing
    if done.returncode:
        raise _failed(command, done.returncode, done.stderr)
    return (done.stdout or "").strip()


def service(project: str, name: str) -> Container | None:
    """Return the container of a service of Compose, running or not."""
    labels = (f"com.docker.compose.project={project}", f"com.docker.compose.service={name}")
    return next(iter(docker.container.list(all=True, filters=[("label", label) for label in labels])), None)


def probe(container: Container | str, *arguments: str, key: str = "") -> dict[str, Any]:
    """Run ops/release/probe.py inside a container and return its answer."""
    command = ["python", "-c", PROBE.read_text(encoding="utf-8"), *arguments]
    with engine_errors():
        return dict(json.loads(str(docker.container.execute(container, command, envs={"PROBE_KEY": key}))))
