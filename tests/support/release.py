"""An image of a small model, built by a real engine from a clone, and what tests do with it."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from ops.registry import production as pointer
from ops.release import docker as engine

BUILD = {"DOCKER_BUILD_FLAGS": os.environ.get("DOCKER_BUILD_FLAGS", "--network=host")}
HARDENED = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"]


def docker(*arguments: str) -> str:
    """Run docker and return what it prints."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def has_engine() -> bool:
    """Tell whether a Docker engine answers."""
    try:
        return subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class Release:
    """A clone with a registry of small models, of which version 1 is Production, and its image."""

    path: Path
    uri: str
    commit: str
    repository: str

    @property
    def image(self) -> str:
        """The immutable tag of the image of version 1."""
        return f"{self.repository}:model-v1-g{self.commit[:7]}"

    @property
    def client(self) -> MlflowClient:
        """A client of the registry."""
        return MlflowClient(self.uri, self.uri)

    def version(self, number: str) -> ModelVersion:
        """Return a version."""
        return self.client.get_model_version("flight-delay", number)

    def run(self, verb: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line (group and verb) in the clone."""
        env = os.environ | {"MLFLOW_TRACKING_URI": self.uri, "IMAGE_NAME": self.repository, **BUILD} | environment
        command = [sys.executable, "-m", "ops.cli", *verb.split(), *arguments]
        return subprocess.run(command, cwd=self.path, env=env, capture_output=True, text=True, check=False)

    @contextmanager
    def container(self, image: str, *options: str) -> Iterator[str]:
        """Run an image until the block ends."""
        name = f"on-time-test-{uuid.uuid4().hex[:8]}"
        try:
            docker("run", "--detach", "--name", name, *HARDENED, *options, image)
            yield name
        finally:
            subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)

    def probe(self, name: str, *arguments: str) -> dict[str, Any]:
        """Ask a container from inside."""
        return engine.probe(name, *arguments)

    def failed_build(self, folder: Path, digest: str) -> str:
        """Return what a build that must not succeed prints."""
        command = [
            "docker",
            "build",
            "--target=service",
            "--force-rm",  # of the legacy builder, which keeps the container of a failed step
            *BUILD["DOCKER_BUILD_FLAGS"].split(),
            f"--build-arg=BUNDLE_DIGEST={digest}",
            str(folder),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode
        return done.stdout + done.stderr

    def derived(self, lines: str, tag: str, revision: str = "", version: str = "", base: str = "") -> str:
        """Build an image that changes the one of version 1; return its name."""
        name = f"{self.repository}:{tag}"
        labels = [f"--label=org.opencontainers.image.revision={revision}"] * bool(revision)
        labels += [f"--label=ai.on-time.model.version={version}"] * bool(version)
        lines += f"\nENV ONTIME_COMMIT={revision}" * bool(revision)
        text = f"FROM {base or self.image}\n{lines}\n".encode()
        subprocess.run(["docker", "build", "--tag", name, *labels, "-"], input=text, capture_output=True, check=True)
        return name

    def renamed(self, number: str) -> str:
        """Build the image of another version, on purpose."""
        done = self.run("release image", "--version", number)
        assert done.returncode == 0, done.stderr[-2000:]
        return f"{self.repository}:model-v{number}-g{self.commit[:7]}"

    def promote(self, number: str) -> None:
        """Make a version Production, as `make promote` leaves it."""
        origin = self.production()
        self.client.set_registered_model_alias("flight-delay", "production", number)
        self.client.set_model_version_tag("flight-delay", number, "promoted.by", "a test")
        if origin:
            self.client.set_registered_model_alias("flight-delay", "previous", origin)

    def production(self) -> str | None:
        """Return the version that is Production."""
        found = pointer.by_alias(self.client, "flight-delay", "production")
        return str(found.version) if found else None

    def remove(self) -> None:
        """Remove all images that were named here."""
        for name in docker("image", "ls", self.repository, "--format", "{{.Repository}}:{{.Tag}}").split():
            docker("image", "rm", "--force", name)
