"""Docker's errors: one line, with what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from python_on_whales import docker

from ops.release.docker import EngineFailed, execute
from ops.release.images import facts_of


def test_without_docker_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(docker.client_config, "_client_call_with_path", None)  # where it was found before
    with pytest.raises(EngineFailed, match="install Docker Engine"):
        facts_of("on-time:model-v1")
    with pytest.raises(EngineFailed, match="install Docker Engine"):
        execute(["docker", "version"])


@pytest.mark.skipif(not shutil.which("docker"), reason="the docker command is not installed")
def test_an_engine_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    for call in (lambda: facts_of("on-time:model-v1"), lambda: execute(["docker", "info"])):
        with pytest.raises(EngineFailed, match="127.0.0.1:9") as raised:
            call()
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 400
