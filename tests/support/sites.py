"""What a release needs around it: a registry of images, and a machine with a proxy in which its containers serve."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from ops.release.docker import compose
from tests.support.clone import ROOT
from tests.support.processes import free_port, running
from tests.support.release import Release, docker

COMPOSE_FILE = ROOT / "ops/stack/compose/compose.yml"
PROFILES = ("--profile=api", "--profile=blue", "--profile=green")
REGISTRY = """
version: 0.1
storage:
  filesystem:
    rootdirectory: {folder}/images
http:
  addr: {address}
"""


@dataclass(frozen=True)
class Site:
    """A proxy of its own, and the deployments behind it."""

    release: Release
    url: str
    environment: dict[str, str]

    def deploy(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `on-time release`: deploy or undeploy."""
        return self.release.run("release", *arguments, **self.environment)

    def serving(self) -> str:
        """Return the version that answers through the proxy; empty when none does."""
        try:
            return str(httpx.get(f"{self.url}/version", timeout=10).json()["model"]["version"])
        except (httpx.HTTPError, ValueError):
            return ""

    def services(self) -> list[str]:
        """Return the services of the API that have a container."""
        names = self._ps("--all", "--format", '{{.Label "com.docker.compose.service"}}').split()
        return sorted(set(names) - {"proxy"})

    def image(self) -> str:
        """Return the image, as it was named, of the one container of the API that runs."""
        (colour,) = self.services()
        return self._ps("--filter", f"label=com.docker.compose.service={colour}", "--format", "{{.Image}}")

    def proxy(self, action: str) -> None:
        """Stop, start or restart the proxy."""
        docker(action, self._ps("--all", "--quiet", "--filter", "label=com.docker.compose.service=proxy"))

    def _ps(self, *arguments: str) -> str:
        label = f"label=com.docker.compose.project={self.environment['COMPOSE_PROJECT_NAME']}"
        return docker("ps", "--no-trunc", "--filter", label, *arguments)


@contextmanager
def running_site(release: Release, name: str) -> Iterator[Site]:
    """Run the proxy of ops/stack/compose until the block ends, which ends all deployments behind it."""
    url, project = f"http://127.0.0.1:{free_port()}", f"on-time-{name}-{os.getpid()}"
    environment = {"COMPOSE_PROJECT_NAME": project, "ONTIME_LISTEN": url.removeprefix("http://")}
    environment |= {"CADDY_IMAGE": caddy_image(release)}
    try:
        compose(project, COMPOSE_FILE, PROFILES[0], "up", "--detach", **environment)
        yield Site(release, url, environment)
    finally:
        compose(project, COMPOSE_FILE, *PROFILES, "down", "--volumes", "--timeout", "1", **environment)


def caddy_image(release: Release) -> str:
    """Build an image of the Caddy that PyPI has, to stand for the official one; return its name."""
    folder, name = release.path / "build/caddy", f"{release.repository}:caddy"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(sys.executable).parent / "caddy", folder)
    base = os.environ.get("BASE_IMAGE") or "python:3.11-slim-bookworm"
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY caddy /usr/bin/caddy\n", encoding="utf-8")
    docker("build", "--tag", name, str(folder))
    return name


@contextmanager
def image_registry(folder: Path) -> Iterator[str]:
    """Run Debian's registry of images until the block ends, and return its address; its images leave the engine."""
    address = f"127.0.0.1:{free_port()}"
    (folder / "registry.yml").write_text(REGISTRY.format(folder=folder, address=address), encoding="utf-8")
    with running(["docker-registry", "serve", folder / "registry.yml"], f"http://{address}/v2/", folder):
        try:
            yield address
        finally:
            for line in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines():
                name, number = line.split()
                if name.startswith(address):
                    docker("image", "rm", "--force", number if name.endswith(":<none>") else name)
