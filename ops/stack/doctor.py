"""`on-time doctor`: what this machine has and lacks, what each part is for, and the command that installs it.

Needs only the standard library, so that it also runs before .venv exists: `python3 -m ops.stack.doctor`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from app import environment
from ops.stack import reach

SECONDS = 20
"""Limit of each program that is started, for a busy machine."""
ENGINE_SECONDS = 3
"""Limit of Docker, which waits long for an engine on another machine."""
GIGABYTE = 1e9
MEMORY_GIGABYTES = 2
DISK_GIGABYTES = {False: 5, True: 1}
"""Free space that is needed without and with a finished .venv."""
OWN = ("MLFLOW_DISABLE_TELEMETRY", "DVC_NO_ANALYTICS")
"""Variables that ops/ci/run sets itself."""
NAMED = ("MLFLOW_", "AWS_", "DVC_", "ONTIME_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class Item:
    """A part of the machine or the checkout."""

    name: str
    ok: bool
    found: str
    purpose: str
    install: str
    """The command that helps where it is missing."""
    required: bool = False

    @property
    def state(self) -> str:
        """Its first column in the table."""
        return "ok" if self.ok else "MISSING" if self.required else "-"


@dataclass(frozen=True)
class Program:
    """A program that is found by its name, or one of its names, on the PATH."""

    name: str
    commands: str
    purpose: str
    package: str
    required: bool = False

    def check(self) -> Item:
        """Return where it is."""
        found = next(filter(None, map(shutil.which, self.commands.split())), None)
        install = f"apt install {self.package}"
        return Item(self.name, bool(found), found or "not on the PATH", self.purpose, install, self.required)


PROGRAMS = (
    Program("git", "git", "the commit that each run records", "git", required=True),
    Program("make", "make", "the everyday commands", "make", required=True),
    Program("curl", "curl", "requests by hand", "curl"),
    Program("Chromium", "chromium google-chrome", "tests of the page, pictures", "chromium"),
    Program("Prometheus", "prometheus", "on-time monitor local, tests of alerts", "prometheus"),
    Program("Alertmanager", "prometheus-alertmanager", "on-time monitor local", "prometheus-alertmanager"),
    Program("wrk", "wrk", "make bench", "wrk"),
)


def output(*command: str, seconds: float = SECONDS) -> str | None:
    """Return what a program prints; None if it is missing, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def python() -> Item:
    """Find the interpreter that ops/ci/setup would use."""
    code = "import sys, importlib.util as u; print(*sys.version_info[:2], "
    code += "bool(u.find_spec('pip') or u.find_spec('ensurepip')), sys._base_executable)"
    uv, purpose, required = shutil.which("uv"), "everything", True
    install = "apt install python3.11-venv (Debian 12), or install uv"
    for name in filter(None, (os.environ.get("PYTHON"), "python3.11", "python3", "python")):
        major, minor, pip, path = (output(name, "-c", code) or "0 0 False -").split(maxsplit=3)
        if (major, minor) == ("3", "11"):
            fine = pip == "True" or uv is not None
            return Item("Python 3.11", fine, path + " without pip and venv" * (not fine), purpose, install, required)
    return Item(
        "Python 3.11", uv is not None, "uv downloads it" if uv else "not on the PATH", purpose, install, required
    )


def openmp() -> Item:
    """Load OpenMP's runtime."""
    try:
        ctypes.CDLL("libgomp.so.1")
        fine = True
    except OSError:
        fine = False
    found = "libgomp.so.1" + " cannot be loaded" * (not fine)
    return Item("OpenMP", fine, found, "LightGBM", "apt install libgomp1", True)


def packages() -> Item:
    """Compare .venv with requirements-dev.txt, as ops/ci/setup does."""
    done = subprocess.run(["ops/ci/setup", "--check"], capture_output=True, text=True, check=False)
    found = (done.stdout or done.stderr).strip().removeprefix("error: ")
    return Item(".venv", done.returncode == 0, found or "up to date", "the locked packages", "make setup")


def writable() -> Item:
    """Test write access to the checkout."""
    fine, folder = os.access(".", os.W_OK), str(Path.cwd())
    found = folder if fine else f"{folder} cannot be written"
    return Item("checkout", fine, found, "outputs, MLflow, .venv", "git clone into a folder of your own", True)


def disk() -> Item:
    """Compare the free space with what set-up and pipeline need."""
    free = shutil.disk_usage(".").free / GIGABYTE
    least = DISK_GIGABYTES[Path(".venv/.ready").exists()]
    return Item(
        "disk", free >= least, f"{free:.1f} GB free, {least} needed", "outputs, MLflow, .venv", "make clean", True
    )


def memory() -> Item:
    """Compare the memory of the machine, or of its container, with what training needs."""
    sizes = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text(encoding="ascii").strip()) != "max":
        sizes.append(float(text))
    size = min(sizes) / GIGABYTE
    found = f"{size:.1f} GB, {MEMORY_GIGABYTES} needed"
    return Item("memory", size >= MEMORY_GIGABYTES, found, "training", "raise the limit of the container", True)


def data() -> Item:
    """Compare the number and the size of the files in data/ with data.dvc."""
    pinned = dict(re.findall(r"^\s+(size|nfiles): (\d+)$", Path("data.dvc").read_text(encoding="utf-8"), re.MULTILINE))
    sizes = [path.stat().st_size for path in Path("data").rglob("*") if path.is_file()]
    fine = (len(sizes), sum(sizes)) == (int(pinned["nfiles"]), int(pinned["size"]))
    found = f"{len(sizes)} of {pinned['nfiles']} files, {sum(sizes) / 1e6:.0f} of {int(pinned['size']) / 1e6:.0f} MB"
    return Item("data/", fine, found, "the raw tables", "make data")


def docker() -> Item:
    """Reach the Docker engine."""
    version = output("docker", "version", "--format", "{{.Server.Version}}", seconds=ENGINE_SECONDS)
    found = f"version {version}" if version else "no answer" if shutil.which("docker") else "not installed"
    install = "systemctl start docker, as root" if shutil.which("docker") else "apt install docker.io"
    return Item("Docker engine", version is not None, found, "make image, make stack", install)


def compose() -> Item:
    """Find Compose, the plugin or version 1."""
    version = output("docker", "compose", "version", "--short") or output("docker-compose", "version", "--short")
    found = f"version {version}" if version else "not installed"
    return Item("Compose", bool(version), found, "make stack", "apt install docker-compose")


def remote() -> Item:
    """Find the remotes in DVC's configuration."""
    names = reach.dvc_remotes()
    install = "dvc remote add --default NAME URL"
    return Item("DVC remote", bool(names), ", ".join(names) or "none", "rows added by on-time data add", install)


def registry() -> Item:
    """Read which versions are Production and Staging."""
    fine, found, install = reach.registry()
    return Item("registry", fine, found, "make promote, make serve", install)


def port() -> Item:
    """Find out whether the service's port is free."""
    number = int(os.environ.get("ONTIME_PORT") or 8000)
    answer = reach.answer(number)
    install = f"make serve PORT={number + 1 if number < 65535 else 8000}"
    return Item(f"port {number}", not answer, answer or "free", "make serve, make demo", install)


def variables() -> Item:
    """Apply docs/environment.md to the variables that this process has inherited."""
    inherited = Path("/proc/self/environ").read_bytes().decode(errors="replace").split("\0")
    names = sorted(name for name, _, value in (entry.partition("=") for entry in inherited) if value)
    names = [name for name in names if name not in OWN and name != "ONTIME_CALLER_DIR"]
    removed = [name for name in names if (rule := environment.rule(name)) and rule.treatment == "removed"]
    used = [name for name in names if name.upper().startswith(NAMED) and name not in removed]
    parts = [f"{text} {', '.join(which)}" for text, which in (("in use:", used), ("ignored:", removed)) if which]
    found, purpose = "; ".join(parts) or "none that matters", "docs/environment.md"
    problem = reach.invalid_settings()
    return Item("variables", not problem, problem or found, purpose, "unset the variable", True)


CHECKS: tuple[Callable[[], Item], ...] = (
    *(python, openmp, *(program.check for program in PROGRAMS if program.required), writable, disk, memory, variables),
    *(packages, data, registry, port, docker, compose, remote),
    *(program.check for program in PROGRAMS if not program.required),
)


def table(items: list[Item]) -> str:
    """Return one line for each item; where it is missing, the command that helps."""
    rows = [(item.state, item.name, item.purpose, item.found, item.install * (not item.ok)) for item in items]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = []
    for *first, found, install in rows:
        start = "  ".join(text.ljust(width) for text, width in zip(first, widths))
        lines.append(f"{start}  {found}" + f": `{install}`" * bool(install))
    return "\n".join(lines)


def report(as_json: bool = False) -> int:
    """Print all items; return the exit code: 1 when a required one is missing."""
    with ThreadPoolExecutor(len(CHECKS)) as threads:
        items = list(threads.map(lambda check: check(), CHECKS))
    missing = [item for item in items if item.required and not item.ok]
    if as_json:
        print(json.dumps([asdict(item) for item in items], indent=2))
    else:
        print(table(items))
        print("\nEverything that `make repro` requires is installed." * (not missing), end="\n" * (not missing))
    for item in missing:
        print(f"error: {item.name}: {item.found}: {item.install}", file=sys.stderr)
    return int(bool(missing))


if __name__ == "__main__":
    parser = argparse.ArgumentParser("on-time doctor", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="Print JSON for programs.")
    sys.exit(report(parser.parse_args().json))
