"""What stands for the world outside GitHub: the shared MLflow, the registry of images, the machines of both stages."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from ops.registry.production import PRODUCTION, by_alias
from ops.rehearsal.runner import ROOT
from ops.rehearsal.scenes import SceneFailed, Stage
from ops.release import deploy
from ops.release.docker import compose, docker, inspect

COMPOSE_FILE = ROOT / "ops/stack/compose/compose.yml"
MODEL = "flight-delay"
NO_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight processes that nobody asks for anything
QUICK = {"WATCH": "3", "LOAD_SECONDS": "5"}
REGISTRY = """
version: 0.1
storage:
  filesystem:
    rootdirectory: {work}/images
http:
  addr: {address}
"""


@dataclass(frozen=True)
class Site:
    """A machine with a proxy, in which an environment's deployments serve."""

    project: str
    port: int

    def serving(self) -> str:
        """Return the version that answers through the proxy; empty when none does."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/version", timeout=10) as answer:
                return str(json.load(answer)["model"]["version"])
        except (urllib.error.URLError, OSError, ValueError):
            return ""

    def image(self) -> str:
        """Return the image, as it was named, of the one container that serves; empty without one, or with two."""
        found = deploy.Site(self.project)
        running = [inspect("container", name) for name in map(found.container, deploy.COLOURS) if name]
        return str(running[0]["Config"]["Image"]) if len(running) == 1 and running[0] else ""

    def proxy(self, action: str) -> None:
        """Stop the proxy, or start it and wait until what is behind it answers."""
        docker(action, deploy.Site(self.project).proxy)
        for _ in range(100 * (action == "start")):
            if self.serving():
                break
            time.sleep(0.2)


@dataclass(frozen=True)
class World:
    """The stage, and what its releases reach."""

    stage: Stage
    registry: MlflowClient
    staging: Site
    production: Site

    def champion(self) -> str:
        """Return the version that is Production in the shared MLflow; empty when none is."""
        found = by_alias(self.registry, MODEL, PRODUCTION)
        return str(found.version) if found else ""


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def server(name: str, command: list[str], url: str, cwd: Path, **environment: str) -> Iterator[None]:
    """Run a server for as long as the block lasts, from when it answers."""
    env = os.environ | environment
    with (cwd / f"{name}.log").open("w", encoding="utf-8") as log:
        with subprocess.Popen(command, cwd=cwd, env=env, stdout=log, stderr=subprocess.STDOUT) as process:
            try:
                for _ in range(600):
                    if process.poll() is not None:
                        raise SceneFailed(f"{name} ended: {log.name} says why.")
                    try:
                        with urllib.request.urlopen(url, timeout=5):
                            break
                    except (urllib.error.URLError, OSError):
                        time.sleep(0.2)
                yield
            finally:
                process.terminate()
                process.wait(60)


@contextmanager
def image_registry(work: Path) -> Iterator[str]:
    """Run a registry of images for as long as the block lasts; return its address."""
    address = f"127.0.0.1:{free_port()}"
    (work / "registry.yml").write_text(REGISTRY.format(work=work, address=address), encoding="utf-8")
    with server("images", ["docker-registry", "serve", str(work / "registry.yml")], f"http://{address}/v2/", work):
        yield address


def caddy_image(folder: Path, name: str) -> str:
    """Build an image of the Caddy that PyPI has, to stand for the official one; return its name."""
    folder.mkdir(parents=True)
    shutil.copy(ROOT / ".venv/bin/caddy", folder / "caddy")
    base = os.environ.get("BASE_IMAGE") or "python:3.11-slim-bookworm"
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY caddy /usr/bin/caddy\n", encoding="utf-8")
    docker("build", "--tag", name, str(folder))
    return name


@contextmanager
def site(project: str, caddy: str) -> Iterator[Site]:
    """Start a proxy of its own for an environment; all of its containers end with the block."""
    made = Site(project, free_port())
    environment = {"CADDY_IMAGE": caddy, "ONTIME_LISTEN": f"127.0.0.1:{made.port}"}
    profiles = [f"--profile={name}" for name in ("api", "blue", "green")]
    compose(project, COMPOSE_FILE, profiles[0], "up", "--detach", **environment)
    try:
        yield made
    finally:
        compose(project, COMPOSE_FILE, *profiles, "down", "--volumes", "--timeout", "1", **environment)


@contextmanager
def world(stage: Stage, work: Path) -> Iterator[World]:
    """Start all of it; nothing of it is left afterwards."""
    mlflow = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", mlflow.partition(":")[2]]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{work}/shared.db"]
    command += ["--artifacts-destination", str(work / "artifacts")]
    (work / "secrets/api").mkdir(parents=True)
    name = f"on-time-rehearsal-{os.getpid()}"
    with ExitStack() as running:
        running.enter_context(server("mlflow", command, f"http://{mlflow}/health", work, **NO_JOBS))
        images = running.enter_context(image_registry(work))
        running.callback(forget_images, name, images)
        caddy = caddy_image(work / "caddy", f"{name}:caddy")
        sites = [running.enter_context(site(f"{name}-{stage_name}", caddy)) for stage_name in ("staging", "production")]
        stage.runner.variables = {"MLFLOW_TRACKING_URI": f"http://{mlflow}", "REGISTRY": images, **QUICK}
        stage.runner.environments = {
            environment: {"COMPOSE_PROJECT_NAME": made.project, "ONTIME_SECRETS": str(work / "secrets")}
            for environment, made in zip(("staging", "production"), sites, strict=True)
        }
        yield World(stage, MlflowClient(f"http://{mlflow}", f"http://{mlflow}"), *sites)


def forget_images(*prefixes: str) -> None:
    """Remove the images whose names begin with one of these."""
    for image in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines():
        name, number = image.split()
        if name.startswith(prefixes):
            docker("image", "rm", "--force", number if name.endswith(":<none>") else name, check=False)
