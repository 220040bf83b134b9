"""The newcomer's path: the README's commands in a new container, by an ordinary user, from nothing but a clone.

`make test` runs tests/unit alone, as the other tests are run beside this one; ONTIME_NEWCOMER=full runs all of them.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import ROOT
from tests.support.clone import make_clone
from tests.support.processes import free_port, wait_for
from tests.support.release import BUILD, docker, has_engine

IMAGE = "on-time-newcomer"
BASE = os.environ.get("BASE_IMAGE") or "python:3.11-slim-bookworm"
DOCKERFILE = f"""FROM {BASE}
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates curl git libgomp1 make procps
RUN useradd --create-home newcomer && git config --system --add safe.directory '*'
USER newcomer
WORKDIR /home/newcomer
"""
CLONE = "git clone --quiet /source/on-time.git"
SERVERS = ("make serve", "make demo")
PORT = free_port()
"""In place of the README's 8000: the container shares the machine's network."""
READY = f"curl --silent --fail --output /dev/null http://127.0.0.1:{PORT}/readyz"
LEFT_OUT = {"docker ": "there is no engine in the container", "make image": "there is no engine in the container"}
Shell = Callable[[str], subprocess.CompletedProcess[str]]


def blocks(text: str) -> list[str]:
    """Return the commands of the console blocks of the section Start, without prompts and comments."""
    section = text.partition("\n## Start\n")[2].partition("\n## ")[0]
    found = "".join(re.findall(r"^```console\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
    lines = [line for line in re.split(r"^\$ ", found, flags=re.MULTILINE) if line.strip()]
    return [re.sub(r"\s+# .*", "", line).strip() for line in lines]


def left_out(command: str) -> str | None:
    """Return why a command is not run; None if it is."""
    return next((reason for start, reason in LEFT_OUT.items() if command.startswith(start)), None)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A function that runs a command in the newcomer's clone, as a login shell does."""
    if not has_engine() and not os.environ.get("CI"):
        pytest.skip("no Docker engine answers on this machine")
    flags = shlex.split(BUILD["DOCKER_BUILD_FLAGS"])
    subprocess.run(["docker", "build", *flags, "--tag", IMAGE, "-"], input=DOCKERFILE.encode(), check=True)
    source = make_clone(tmp_path_factory.mktemp("source") / "clone", data=False)
    bare = source.path.with_name("on-time.git")
    source.run("git", "clone", "--quiet", "--bare", ".", str(bare))
    for path in (bare, *bare.parents[:2]):
        path.chmod(0o755)
    name = f"on-time-test-{uuid.uuid4().hex[:8]}"
    options = ["--network=host", f"--volume={bare}:/source/on-time.git:ro", f"--env=ONTIME_PORT={PORT}"]
    docker("run", "--detach", "--rm", "--init", "--name", name, *options, IMAGE, "sleep", "infinity")

    def run(command: str) -> subprocess.CompletedProcess[str]:
        line = ["docker", "exec", "--env=PYTEST_ADDOPTS", name, "bash", "-c", command]
        only = {} if os.environ.get("ONTIME_NEWCOMER") == "full" else {"PYTEST_ADDOPTS": "tests/unit"}
        return subprocess.run(line, env=os.environ | only, capture_output=True, text=True, check=False)

    yield run
    docker("rm", "--force", name)


def serve(shell: Shell, command: str) -> int:
    """Start a server as a background job, and return 0 once it is ready."""
    shell(
        f"cd on-time && (env --default-signal=INT {command} >server.log 2>&1; echo $? >server.exit) >/dev/null 2>&1 &"
    )

    def ready() -> bool:
        if shell("test -e on-time/server.exit").returncode == 0:
            pytest.fail(f"`{command}` ended: {shell('tail -20 on-time/server.log').stdout}")
        return shell(READY).returncode == 0

    wait_for(f"`{command}` is ready", ready, 300)
    return 0


def interrupt(shell: Shell) -> None:
    """Interrupt the server that runs, as Ctrl-C does, and wait for its end."""
    shell("pkill --signal INT --full 'python.* -m (app|ops.cli)'; true")  # in the container, whose processes are ours
    wait_for("the server has ended", lambda: shell("test -e on-time/server.exit").returncode == 0, 60)
    assert shell("cat on-time/server.exit; rm on-time/server.exit").stdout.strip() in ("0", "2", "130")


def test_the_commands_of_the_readme_work_in_order(shell: Shell) -> None:
    commands = [CLONE, *blocks((ROOT / "README.md").read_text(encoding="utf-8"))]
    assert {"make repro", "make test", "make promote", "make serve"} <= set(commands)
    log, failed, serving = [], [], False
    for command in commands:
        if reason := left_out(command):
            log.append(f"         left out  {command}: {reason}")
            continue
        server = command.rstrip("& ").startswith(SERVERS)
        if server and serving:
            interrupt(shell)
        start = time.monotonic()
        where = "" if command.startswith("git clone") else "cd on-time && "
        done = None if server else shell(where + command.replace(":8000/", f":{PORT}/"))
        code = done.returncode if done else serve(shell, command.rstrip("& "))
        serving = serving or server
        log.append(f"{time.monotonic() - start:7.1f} s  exit {code}  {command.splitlines()[0]}")
        print(log[-1], flush=True)
        if done and code:
            failed.append(f"{command}:\n{(done.stdout + done.stderr)[-2000:]}")
            if command == CLONE:
                break
    if serving:
        interrupt(shell)
    print("\n".join(log), shell("tail -3 on-time/server.log").stdout, sep="\n")
    assert not failed, "\n".join(failed)
    assert shell("cd on-time && git status --porcelain --untracked-files=no").stdout == ""


def test_the_commands_are_those_of_the_section_alone() -> None:
    text = "# A\n```console\n$ no\n```\n## Start\n```console\n$ make a   # why\n$ b 'x\n    y'\n```\n```\n$ no\n```\n"
    text += "## Next\n```console\n$ no\n```\n"
    assert blocks(text) == ["make a", "b 'x\n    y'"]
    assert left_out("docker run x") and left_out("make image") and not left_out("make test")
