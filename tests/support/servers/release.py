"""An image of a small model, built by a real engine from a clone; the proxy it is deployed behind; an image registry.

Commands run in this process, as functions: the command line would import MLflow for each.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from ops.registry import aliases
from ops.release import deploy, docker, images
from stages import params
from tests.support.processes import free_port, running
from tests.support.repositories.clone import ROOT

BASE = os.environ.get("BASE_IMAGE") or "python:3.11-slim-bookworm"
BUILD = {"DOCKER_BUILD_FLAGS": os.environ.get("DOCKER_BUILD_FLAGS", "--network=host")}
HARDENED = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
COMPOSE_FILE = ROOT / "ops/stack/compose/compose.yml"
PROFILES = ("--profile=api", "--profile=blue", "--profile=green")
NAME = "flight-delay"
REGISTRY = """
version: 0.1
storage:
  filesystem:
    rootdirectory: {folder}/images
http:
  addr: {address}
"""


def run_docker(*arguments: str) -> str:
    """Run docker and return what it prints."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def has_engine() -> bool:
    """Return whether a Docker engine answers."""
    try:
        return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class Release:
    """A clone with a registry of small models, version 1 in Production, and its image."""

    path: Path
    uri: str
    commit: str
    repository: str
    built: dict[str, str] = field(default_factory=dict)
    """The immutable tags of the images that were built, by their version."""

    @property
    def client(self) -> MlflowClient:
        """A client of the registry."""
        return MlflowClient(self.uri, self.uri)

    @property
    def image(self) -> str:
        """The immutable tag of the image of version 1."""
        return self.build("1")

    def version(self, number: str) -> ModelVersion:
        """Return a version."""
        return self.client.get_model_version(NAME, number)

    def build(self, number: str) -> str:
        """Return the image of a version, which is built once."""
        if number not in self.built:
            self.built[number] = images.build(self.client, params.load(), number)
        return self.built[number]

    def derived(self, lines: str, letter: str) -> str:
        """Build an image that changes the one of version 1, as if it were of another commit; return its name."""
        name = f"{self.repository}:model-v1-g{letter * 7}"
        label = f"--label=org.opencontainers.image.revision={letter * 40}"
        text = f"FROM {self.image}\nUSER 0\n{lines}\nENV ONTIME_COMMIT={letter * 40}\nUSER 10001\n"
        subprocess.run(["docker", "build", "--tag", name, label, "-"], input=text.encode(), check=True)
        return name

    def failed_build(self, folder: Path, digest: str) -> str:
        """Return what a build that must not succeed prints."""
        flags = ["--target=service", "--force-rm", *BUILD["DOCKER_BUILD_FLAGS"].split()]
        command = ["docker", "build", *flags, f"--build-arg=BUNDLE_DIGEST={digest}", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode
        return done.stdout + done.stderr

    @contextmanager
    def container(self, *options: str) -> Iterator[str]:
        """Run the image until the block ends, which starts when it is ready."""
        name = f"on-time-test-{uuid.uuid4().hex[:8]}"
        try:
            run_docker("run", "--detach", "--name", name, *HARDENED, *options, self.image)
            assert docker.probe(name, "wait", "60")["status"] == 200
            yield name
        finally:
            subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)

    def promote(self, number: str) -> None:
        """Make a version Production."""
        self.client.set_registered_model_alias(NAME, aliases.PRODUCTION, number)
        self.client.set_model_version_tag(NAME, number, aliases.PROMOTED_TAG, "a test")

    def production(self) -> str:
        """Return the version that is Production."""
        return str(self.client.get_model_version_by_alias(NAME, aliases.PRODUCTION).version)

    def remove(self) -> None:
        """Remove all images that were named here."""
        for name in run_docker("image", "ls", self.repository, "--format", "{{.Repository}}:{{.Tag}}").split():
            run_docker("image", "rm", "--force", name)


@dataclass(frozen=True)
class Site:
    """A proxy of its own, and the deployments behind it."""

    release: Release
    url: str
    project: str

    def deploy(self, name: str, soak: float = 2, watch: float = 2) -> str:
        """Deploy an image."""
        return deploy.deploy_version(self.release.client, params.load(), name, deploy.Plan("here", soak, watch))

    def undeploy(self, number: str, name: str = "") -> str:
        """Bring an earlier version back."""
        return deploy.undeploy_to(self.release.client, params.load(), number, deploy.Plan("here", 1, 1), "a test", name)

    def serving(self) -> str:
        """Return the version that answers through the proxy; empty when none does."""
        try:
            return str(httpx.get(f"{self.url}/version", timeout=10).json()["model"]["version"])
        except (httpx.HTTPError, ValueError):
            return ""

    def services(self) -> list[str]:
        """Return the services of the API that have a container."""
        return [colour for colour in deploy.COLOURS if docker.service(self.project, colour)]

    def image(self) -> str:
        """Return the image, as it was named, of the one container of the API that runs."""
        (colour,) = self.services()
        label = f"label=com.docker.compose.service={colour}"
        project = f"label=com.docker.compose.project={self.project}"
        return run_docker("ps", "--no-trunc", "--filter", project, "--filter", label, "--format", "{{.Image}}")

    def proxy(self, action: str) -> None:
        """Stop, start or restart the proxy."""
        run_docker(action, deploy.Site(self.project).proxy.id)


@contextmanager
def running_site(release: Release, folder: Path) -> Iterator[Site]:
    """Run the proxy of ops/stack/compose until the block ends, which ends all deployments behind it."""
    url, project = f"http://127.0.0.1:{free_port()}", f"on-time-test-{uuid.uuid4().hex[:8]}"
    (folder / "api").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy, "PROJECT", project)
        patch.setenv("ONTIME_LISTEN", url.removeprefix("http://"))
        patch.setenv("ONTIME_SECRETS", str(folder))
        patch.setenv("CADDY_IMAGE", caddy_image(release))
        try:
            docker.compose(project, COMPOSE_FILE, PROFILES[0], "up", "--detach")
            yield Site(release, url, project)
        finally:
            docker.compose(project, COMPOSE_FILE, *PROFILES, "down", "--volumes", "--timeout", "1")


def caddy_image(release: Release) -> str:
    """Build an image of the Caddy that PyPI has, to stand for the official one; return its name."""
    folder, name = release.path / "build/caddy", f"{release.repository}:caddy"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(sys.executable).parent / "caddy", folder)
    (folder / "Dockerfile").write_text(f"FROM {BASE}\nCOPY caddy /usr/bin/caddy\n", encoding="utf-8")
    run_docker("build", "--tag", name, str(folder))
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
            for line in run_docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines():
                name, number = line.split()
                if name.startswith(address):
                    run_docker("image", "rm", "--force", number if name.endswith(":<none>") else name)
