"""`on-time doctor`: what this machine has and lacks, what each part is for, and the command that installs it.

It needs only the standard library, because it also runs before .venv exists: `python3 -m ops.doctor.doctor`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from app import environment

SECONDS = 20  # limit of each program that is started, for a busy machine
ENGINE_SECONDS = 3  # limit of Docker, which waits long for an engine on another machine
PORT_SECONDS = 1
MEMORY_GB, DISK_GB, DISK_GB_WITHOUT_VENV = 2, 1, 5
OWN = ("MLFLOW_DISABLE_TELEMETRY", "DVC_NO_ANALYTICS", "ONTIME_CALLER_DIR")
"""Variables that ops/ci/run and on-time set themselves."""
NAMED = ("MLFLOW_", "AWS_", "DVC_", "ONTIME_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
ALERTMANAGER = "prometheus-alertmanager"
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}
PYTHON = """import sys, importlib.util as u
print(*sys.version_info[:2], bool(u.find_spec('pip') or u.find_spec('ensurepip')), sys._base_executable)"""
ALIASES = """import sys, mlflow
model = mlflow.MlflowClient(sys.argv[1]).get_registered_model(sys.argv[2])
print(*(model.aliases.get(alias, '-') for alias in ('production', 'staging')))"""


class Found(NamedTuple):
    """The result of a check; `install` replaces the command of the table where it depends on the result."""

    ok: bool
    text: str
    install: str = ""


class Probe(NamedTuple):
    """A row of the table: a part of the machine or of the checkout, and the command that helps where it is missing."""

    name: str
    purpose: str
    find: Callable[[], Found]
    install: str
    required: bool = False


def output(*command: str, seconds: float = SECONDS, **variables: str) -> str | None:
    """Return the output of a program; None if it is missing, fails or takes too long."""
    env = os.environ | variables
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def program(*names: str) -> Callable[[], Found]:
    """Return a check that finds a program by one of its names."""

    def find() -> Found:
        path = next(filter(None, map(shutil.which, names)), None)
        return Found(path is not None, path or "not on the PATH")

    return find


def python() -> Found:
    """Find the interpreter that ops/ci/setup would use."""
    uv = shutil.which("uv")
    for name in filter(None, (os.environ.get("PYTHON"), "python3.11", "python3", "python")):
        major, minor, pip, path = (output(name, "-c", PYTHON) or "0 0 False -").split(maxsplit=3)
        if (major, minor) == ("3", "11"):
            if pip == "True" or uv:
                return Found(True, path)
            return Found(False, f"{path} without pip and venv")
    if uv:
        return Found(True, "uv downloads it")
    return Found(False, "not on the PATH")


def openmp() -> Found:
    """Load OpenMP's runtime."""
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        return Found(False, "libgomp.so.1 cannot be loaded")
    return Found(True, "libgomp.so.1")


def packages() -> Found:
    """Compare .venv with requirements-dev.txt, as ops/ci/setup does."""
    done = subprocess.run(["ops/ci/setup", "--check"], capture_output=True, text=True, check=False)
    problem = (done.stdout or done.stderr).strip().removeprefix("error: ")
    return Found(done.returncode == 0, problem or "up to date")


def writable() -> Found:
    """Test write access to the checkout."""
    if os.access(".", os.W_OK):
        return Found(True, str(Path.cwd()))
    return Found(False, f"{Path.cwd()} cannot be written")


def disk() -> Found:
    """Compare the free space with what set-up and pipeline need."""
    free = shutil.disk_usage(".").free / 1e9
    least = DISK_GB if Path(".venv/.ready").exists() else DISK_GB_WITHOUT_VENV
    return Found(free >= least, f"{free:.1f} GB free, {least} needed")


def memory() -> Found:
    """Compare the memory of the machine, or of its container, with what training needs."""
    size = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # no control group, or one without a limit ("max")
        size = min(size, float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return Found(size / 1e9 >= MEMORY_GB, f"{size / 1e9:.1f} GB, {MEMORY_GB} needed")


def data() -> Found:
    """Compare the number and the size of the files in data/ with data.dvc."""
    pinned = dict(re.findall(r"^\s+(size|nfiles): (\d+)$", Path("data.dvc").read_text(encoding="utf-8"), re.MULTILINE))
    count, size = int(pinned["nfiles"]), int(pinned["size"])
    sizes = [path.stat().st_size for path in Path("data").rglob("*") if path.is_file()]
    text = f"{len(sizes)} of {count} files, {sum(sizes) / 1e6:.0f} of {size / 1e6:.0f} MB"
    return Found((len(sizes), sum(sizes)) == (count, size), text)


def docker() -> Found:
    """Reach the Docker engine."""
    version = output("docker", "version", "--format", "{{.Server.Version}}", seconds=ENGINE_SECONDS)
    if version is not None:
        return Found(True, f"version {version}")
    if shutil.which("docker"):
        return Found(False, "no answer", "systemctl start docker, as root")
    return Found(False, "not installed")


def compose() -> Found:
    """Find Compose, the plugin or version 1."""
    version = output("docker", "compose", "version", "--short") or output("docker-compose", "version", "--short")
    return Found(bool(version), f"version {version}" if version else "not installed")


def dvc_remotes() -> list[str]:
    """Return the names of the remotes in DVC's configuration."""
    texts = [
        path.read_text(encoding="utf-8") for path in map(Path, (".dvc/config", ".dvc/config.local")) if path.exists()
    ]
    return [name for text in texts for name in re.findall(r'^\[.*remote "(.*?)"', text, re.MULTILINE)]


def remote() -> Found:
    """Find DVC's remotes."""
    names = dvc_remotes()
    return Found(bool(names), ", ".join(names) or "none")


def listens(host: str, port: int) -> bool:
    """Return whether something listens on a port."""
    with suppress(OSError), socket.create_connection((host, port), PORT_SECONDS):
        return True
    return False


def port() -> Found:
    """Find out whether the port of the service is free, or what answers there."""
    number = int(os.environ.get("ONTIME_PORT") or 8000)
    other = number + 1 if number < 65535 else 8000
    advice = f"make serve PORT={other}"
    if not listens("127.0.0.1", number):
        return Found(True, f"{number} is free", advice)
    with suppress(OSError, ValueError, KeyError, TypeError):
        with urllib.request.urlopen(f"http://127.0.0.1:{number}/version", timeout=PORT_SECONDS) as response:
            model = json.load(response)["model"]
        text = f"{number}: this service answers, with version {model['version']} of {model['name']}"
        return Found(False, text, advice)
    return Found(False, f"{number}: another program listens", advice)


def registry() -> Found:
    """Read which versions are Production and Staging."""
    try:
        from app.addresses import sqlite_file, without_password  # pylint: disable=import-outside-toplevel
        from app.interface import NAME  # pylint: disable=import-outside-toplevel # these need .venv
        from app.settings import DEFAULT_TRACKING_URI  # pylint: disable=import-outside-toplevel
    except ImportError:
        return Found(False, "unknown without .venv", "make repro")
    uri = os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_TRACKING_URI
    where, file, address = without_password(uri), sqlite_file(uri), urlsplit(uri)
    if file and not file.exists():
        return Found(False, f"{where} does not exist yet", "make repro")
    number = 0 if file else address.port or PORTS.get(address.scheme.partition("+")[0], 0)
    if number and not listens(address.hostname or "", number):
        return Found(False, f"{where} is unreachable", "env -u MLFLOW_TRACKING_URI make repro")
    versions = output(sys.executable, "-c", ALIASES, uri, NAME, seconds=60, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    if versions is None:
        return Found(False, f"{where} has no readable registry of {NAME}", "make repro")
    production, staging = versions.split()
    text = f"Production is version {production}, Staging is version {staging} of {NAME} in {where}"
    text = text.replace("version -", "none")
    if staging == "-":
        return Found(production != "-", text, "make repro")
    return Found(production != "-", text, "make promote")


def variables() -> Found:
    """Apply docs/environment.md to the variables that this process has inherited."""
    inherited = Path("/proc/self/environ").read_bytes().decode(errors="replace").split("\0")
    names = sorted(name for name, _, value in (entry.partition("=") for entry in inherited) if value)
    names = [name for name in names if name not in OWN]
    ignored = [name for name in names if name in environment.REMOVED]
    used = [name for name in names if name.upper().startswith(NAMED) and name not in ignored]
    parts = [f"{title} {', '.join(group)}" for title, group in (("in use:", used), ("ignored:", ignored)) if group]
    try:
        environment.check()
        from app.settings import Settings  # pylint: disable=import-outside-toplevel # needs .venv

        Settings.read()
    except environment.EnvironmentInvalid as err:
        return Found(False, str(err))
    except ImportError:
        pass
    return Found(True, "; ".join(parts) or "none that matters")


CHECKS = (
    Probe("Python 3.11", "everything", python, "apt install python3.11-venv (Debian 12), or install uv", True),
    Probe("OpenMP", "LightGBM", openmp, "apt install libgomp1", True),
    Probe("git", "the commit that each run records", program("git"), "apt install git", True),
    Probe("make", "the everyday commands", program("make"), "apt install make", True),
    Probe("checkout", "outputs, MLflow, .venv", writable, "git clone into a folder of your own", True),
    Probe("disk", "outputs, MLflow, .venv", disk, "make clean", True),
    Probe("memory", "training", memory, "raise the limit of the container", True),
    Probe("variables", "docs/environment.md", variables, "unset the variable", True),
    Probe(".venv", "the locked packages", packages, "make setup"),
    Probe("data/", "the raw tables", data, "make data"),
    Probe("registry", "make promote, make serve", registry, "make repro"),
    Probe("port", "make serve, make demo", port, "make serve PORT=8001"),
    Probe("Docker engine", "make image, make stack", docker, "apt install docker.io"),
    Probe("Compose", "make stack", compose, "apt install docker-compose"),
    Probe("DVC remote", "rows added by on-time data add", remote, "dvc remote add --default NAME URL"),
    Probe("curl", "requests by hand", program("curl"), "apt install curl"),
    Probe("Chromium", "tests of the page, pictures", program("chromium", "google-chrome"), "apt install chromium"),
    Probe("Prometheus", "on-time monitor local, tests of alerts", program("prometheus"), "apt install prometheus"),
    Probe("Alertmanager", "on-time monitor local", program(ALERTMANAGER), f"apt install {ALERTMANAGER}"),
    Probe("wrk", "make bench", program("wrk"), "apt install wrk"),
)


def report(as_json: bool = False) -> int:
    """Print a line for each check; return the exit code: 1 when a required part is missing."""
    with ThreadPoolExecutor(len(CHECKS)) as threads:
        results = list(threads.map(lambda check: check.find(), CHECKS))
    rows = []
    for check, (ok, text, install) in zip(CHECKS, results):
        fields = {"name": check.name, "ok": ok, "found": text, "purpose": check.purpose}
        rows.append(fields | {"install": install or check.install, "required": check.required})
    missing = [row for row in rows if row["required"] and not row["ok"]]
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        for row in rows:
            line = f"{row['name']:13}  {row['purpose']:38}  {row['found']}"
            if row["ok"]:
                print(f"ok       {line}")
            elif row["required"]:
                print(f"MISSING  {line}: `{row['install']}`")
            else:
                print(f"-        {line}: `{row['install']}`")
        if not missing:
            print("\nEverything that `make repro` requires is installed.")
    for row in missing:
        print(f"error: {row['name']}: {row['found']}: {row['install']}", file=sys.stderr)
    return int(bool(missing))


if __name__ == "__main__":
    parser = argparse.ArgumentParser("on-time doctor", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="Print JSON for programs.")
    sys.exit(report(parser.parse_args().json))
