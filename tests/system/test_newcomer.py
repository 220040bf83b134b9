"""The newcomer's path: README and first ten minutes, in a new container, by an ordinary user; then the stumbles.

`make test` runs one file there, as the others are run beside this one; ONTIME_NEWCOMER=full runs all of them.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.processes import free_port, wait_for
from tests.support.repositories.clone import make_clone
from tests.support.servers.release import BUILD, has_engine, run_docker

pytestmark = pytest.mark.nightly
BASE = os.environ.get("BASE_IMAGE") or "python:3.11-slim-bookworm"
DOCKERFILE = f"""FROM {BASE} AS bare
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates curl git make procps
RUN useradd --create-home newcomer && git config --system --add safe.directory '*'
USER newcomer
WORKDIR /home/newcomer
FROM bare AS newcomer
USER root
RUN apt-get install --yes --no-install-recommends libgomp1
USER newcomer
"""
CLONE = "git clone --quiet /source/on-time.git"
PORT = free_port()
"""In place of 8000: the container shares the machine's network."""
SERVER = "make serve"
INTERRUPTED = """set -m; make setup >../setup.log 2>&1 &
until [ -x .venv/bin/python ]; do kill -0 $! || exit 9; sleep 0.1; done
kill -INT -- -$!; wait $!; cat ../setup.log; [ ! -e .venv/.ready ]"""
"""Ctrl-C as soon as .venv has a Python, and before it has all packages."""
LEFT_OUT = {"make ui": "its port may be taken on the machine that the container shares it with"}
SMALL = "/small:exec,size=150m,mode=1777"
"""A file system that can be filled."""
Done = subprocess.CompletedProcess[str]


def blocks(text: str, section: str = "") -> list[str]:
    """Return the commands of the console blocks, of one section if it is named, each followed by its output."""
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    found = "".join(re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    return [part.strip() for part in re.split(r"^\$ ", found, flags=re.MULTILINE) if part.strip()]


def command_and_output(block: str) -> tuple[str, list[str]]:
    """Return the command without its comment, and the lines of its output; a command ends with its last quote."""
    lines = block.splitlines()
    last = next(i for i in range(len(lines)) if "\n".join(lines[: i + 1]).count("'") % 2 == 0)
    return re.sub(r"\s+# .*", "", "\n".join(lines[: last + 1])).strip(), lines[last + 1 :]


def normal(text: str) -> str:
    """Return a text without what differs between two runs: ids, times, ports, widths of columns."""
    text = re.sub(r"\b(?=[a-f]*\d)[0-9a-f]{8,32}\b", "<id>", text.replace(f":{PORT}", ":8000"))
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+\+00:00)?", "<time>", text)
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


class Box:
    """A container in which an ordinary user types commands."""

    def __init__(self, image: str, source: Path, *options: str) -> None:
        self.name = f"on-time-test-{uuid.uuid4().hex[:8]}"
        options += (f"--volume={source}:/source/on-time.git:ro", f"--env=ONTIME_PORT={PORT}")
        run_docker("run", "--detach", "--init", "--name", self.name, *options, image, "sleep", "infinity")

    def run(self, command: str, check: bool = False, **environment: str) -> Done:
        """Run a command in the clone, or where it is to be made."""
        given = [f"--env={name}={value}" for name, value in environment.items()]
        line = f"[ ! -e on-time ] || cd on-time; {command}"
        done = subprocess.run(
            ["docker", "exec", *given, self.name, "bash", "-c", line], capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def serve(self) -> None:
        """Start the service; one that runs is interrupted first, as by Ctrl-C."""
        self.run("pkill --signal INT --full 'python.* -m app'")
        wait_for("the service has ended", lambda: self.run("pgrep --full 'python.* -m app'").returncode, 60)
        self.run(f"(env --default-signal=INT {SERVER}; echo it ended with $?) >>server.log 2>&1 &")
        ready = f"curl --silent --fail --output /dev/null http://127.0.0.1:{PORT}/readyz"
        wait_for("the service is ready", lambda: self.run(ready).returncode == 0, 300, self.log)

    def log(self) -> str:
        """Return what the service has printed."""
        return self.run("cat server.log").stdout

    def remove(self) -> None:
        """Remove the container."""
        subprocess.run(["docker", "rm", "--force", self.name], capture_output=True, check=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository with this working tree; the images are built."""
    if not has_engine() and not os.environ.get("CI"):
        pytest.skip("no Docker engine answers on this machine")
    for target in ("bare", "newcomer"):
        command = ["docker", "build", *shlex.split(BUILD["DOCKER_BUILD_FLAGS"]), "--target", target]
        subprocess.run([*command, "--tag", f"on-time-{target}", "-"], input=DOCKERFILE.encode(), check=True)
    clone = make_clone(tmp_path_factory.mktemp("source") / "clone", data=False)
    bare = clone.path.with_name("on-time.git")
    clone.run("git", "clone", "--quiet", "--bare", ".", str(bare))
    for path in (bare, *bare.parents[:2]):
        path.chmod(0o755)
    return bare


@pytest.fixture(scope="module")
def box(source: Path) -> Iterator[Box]:
    """The newcomer's machine."""
    found = Box("on-time-newcomer", source, "--network=host", f"--tmpfs={SMALL}")
    yield found
    found.remove()


@pytest.mark.parametrize(
    ("image", "path", "sentence"),
    [
        ("bare", "", "apt install libgomp1"),
        ("newcomer", "/usr/bin:/bin", "there is no Python 3.11 here; install it"),
        ("newcomer", "", "Check the network"),
    ],
)
def test_what_a_machine_lacks_is_named_first(source: Path, image: str, path: str, sentence: str) -> None:
    box = Box(f"on-time-{image}", source, "--network=none")
    try:
        box.run(CLONE, check=True)
        done = box.run("make repro", PIP_RETRIES="0", **({"PATH": path} if path else {}))
        print(done.stderr)
        assert done.returncode == 2 and sentence in done.stderr.splitlines()[-2]
        assert box.run("ls -d .venv data/*.csv").stdout == ""
    finally:
        box.remove()


def test_the_commands_work_and_print_what_is_shown(box: Box) -> None:
    """Those of the README and of the ten minutes, in their order, after a set-up that was interrupted."""
    readme, start = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/start.md"))
    pages = [command_and_output(block) for block in [*blocks(readme, "Start"), *blocks(start)]]
    assert {"make repro", "make test", "make promote", SERVER} <= {command for command, _ in pages}
    box.run(CLONE, check=True)
    interrupted = box.run(INTERRUPTED, check=True)
    printed, known = interrupted.stdout + interrupted.stderr, set()
    for command, shown in pages:
        begin = time.monotonic()
        name = command.splitlines()[0]
        reason = next((reason for start, reason in LEFT_OUT.items() if command.startswith(start)), None)
        if reason:
            print(f"left out  {name}: {reason}")
        elif command.rstrip("& ") == SERVER:
            box.serve()
        elif command not in known:
            known.add(command)
            only = "" if os.environ.get("ONTIME_NEWCOMER") == "full" else "tests/ops/docs/test_docs.py"
            done = box.run(command.replace(":8000/", f":{PORT}/"), check=True, PYTEST_ADDOPTS=only)
            printed += done.stdout + done.stderr
        print(f"{time.monotonic() - begin:7.1f} s  {name}", flush=True)
        there = normal(printed + box.log())
        missing = [line for line in normal("\n".join(shown)).splitlines() if line != "..." and line not in there]
        assert not missing, f"{command} does not print {missing}, but {printed[-3000:]}"
    assert box.run("git status --porcelain --untracked-files=no").stdout == ""


STUMBLES = {
    "a port that is taken": (SERVER, f"Address already in use. Choose another port: `make serve PORT={PORT + 1}`"),
    "an MLflow server that does not answer": (
        "MLFLOW_TRACKING_URI=http://127.0.0.1:9 make repro",
        "env -u MLFLOW_TRACKING_URI make repro",
    ),
    "a checkout that is read-only": (
        "git clone -q . ../locked && chmod -R a-w ../locked && make -C ../locked repro",
        "cannot be written by this user: clone the repository into a folder of your own",
    ),
    "a full disk": (
        "git clone -q . /small/on-time && cp -r data /small/on-time && cd /small/on-time "
        "&& ln -s ~/on-time/.venv .venv && (cat /dev/zero >full 2>/dev/null; make repro)",
        "the disk of /small/on-time is full: free some space",
    ),
}


@pytest.mark.parametrize("stumble", STUMBLES)
def test_a_stumble_ends_in_a_sentence(box: Box, stumble: str) -> None:
    command, sentence = STUMBLES[stumble]
    begin = time.monotonic()
    done = box.run(command)
    last = (done.stdout + done.stderr).splitlines()[-6:]
    print(f"{stumble}, after {time.monotonic() - begin:.1f} s:", *last, sep="\n  ")
    assert done.returncode == 2 and sentence in "\n".join(last) and "Traceback" not in done.stderr


def test_the_next_try_works(box: Box) -> None:
    box.run("make repro", check=True)
    box.run("cd /small/on-time && rm full && ops/ci/run dvc repro validate", check=True)


def test_a_block_is_a_command_and_its_output() -> None:
    text = "# A\n```console\n$ no\n```\n## Start\n```console\n$ make a   # why\n$ b 'x\n    y'\nout\n```\n"
    text += "```\n$ no\n```\n## Next\n```console\n$ no\n```\n"
    found = [command_and_output(block) for block in blocks(text, "Start")]
    assert found == [("make a", []), ("b 'x\n    y'", ["out"])]
    assert normal("in  2026-11-26 16:07:36 UTC 1f1aede3 decade") == "in <time> UTC <id> decade"
