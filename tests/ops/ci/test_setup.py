"""The set-up script, with some of the locked packages: moved, copied, cached and shared environments; bad machines."""

from __future__ import annotations

import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[3]
REQUIREMENTS = "requirements-dev.txt"
TOOLS = "bash cp dirname env flock grep ln mkdir mktemp mv rm sed sha256sum tail".split()


def _locked(*names: str) -> str:
    """Return the lines of the real requirements that lock these packages."""
    text = (ROOT / REQUIREMENTS).read_text(encoding="utf-8")
    return "".join(re.findall(rf"^(?:{'|'.join(names)})==.*?(?=^\S)", text, re.MULTILINE | re.DOTALL))


def _set_up(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "VIRTUAL_ENV")}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"  # the locked uv
    return subprocess.run(
        [folder / "ops/ci/setup"], cwd=folder, env=env | environment, capture_output=True, text=True, check=False
    )


def _quietly(folder: Path) -> bool:
    done = _set_up(folder)
    return (done.returncode, done.stdout, done.stderr) == (0, "", "")


def _works(folder: Path) -> bool:
    """Run a program of the environment, as itself and in a shell that activates it, and the command line beside it."""
    script = ". .venv/bin/activate && pygmentize -V && on-time && python -c 'import pygments; print(pygments.__file__)'"
    run = subprocess.run([folder / ".venv/bin/pygmentize", "-V"], capture_output=True, text=True, check=True)
    shell = subprocess.run(["bash", "-euc", script], cwd=folder, capture_output=True, text=True, check=True)
    version, command, module = shell.stdout.splitlines()
    assert run.stdout.splitlines() == [version]
    return command == str(folder) and module.startswith(f"{folder}/.venv/")


def _checkout(folder: Path, requirements: str = _locked("uv", "pygments")) -> Path:
    """Make a folder with the script, a command line that prints where it is, and requirements."""
    (folder / "ops/ci").mkdir(parents=True)
    for script in ("setup", "environment.sh", "pip-settings.sh"):
        shutil.copy2(ROOT / "ops/ci" / script, folder / "ops/ci" / script)
    (folder / REQUIREMENTS).write_text(requirements, encoding="utf-8")
    (folder / "on-time").write_text('#!/bin/sh\ndirname "$(realpath "$0")"\n', encoding="utf-8")
    (folder / "on-time").chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that has been set up."""
    folder = _checkout(tmp_path_factory.mktemp("setup") / "first")
    done = _set_up(folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("setup: making .venv") and done.stderr.count("\n") == 1
    return folder


@pytest.fixture
def checkout(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "copy", symlinks=True)


def test_what_is_done_is_not_done_again(made: Path) -> None:
    start = time.perf_counter()
    assert all(_quietly(made) for _ in range(10))
    assert time.perf_counter() - start < 5
    assert _works(made)


@pytest.mark.parametrize("place", ["moved", "späces, it's 100%"])
def test_a_moved_or_copied_checkout_works_at_once(checkout: Path, place: str) -> None:
    moved = checkout.rename(checkout.with_name(place))
    assert _quietly(moved) and _works(moved)


def test_changed_requirements_are_installed(checkout: Path) -> None:
    (checkout / REQUIREMENTS).write_text(_locked("uv", "pygments", "iniconfig"), encoding="utf-8")
    assert _set_up(checkout).stderr == f"setup: bringing .venv to {REQUIREMENTS}\n"
    assert list(checkout.glob(".venv/lib/*/site-packages/iniconfig")) and _quietly(checkout)


def test_an_environment_gets_another_python(checkout: Path) -> None:
    python = checkout / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nowhere/python3.11")
    done = _set_up(checkout)
    assert (done.returncode, done.stderr) == (0, "setup: the Python of .venv is gone; linking it to another one\n")
    assert _works(checkout) and _quietly(checkout)


def test_a_linked_environment_is_never_changed(checkout: Path, tmp_path: Path) -> None:
    same, other = _checkout(tmp_path / "same"), _checkout(tmp_path / "other", _locked("uv"))
    for folder in (same, other):
        (folder / ".venv").symlink_to("../copy/.venv")
    assert _quietly(same)
    done = _set_up(other)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "error: .venv is a link to ../copy/.venv, which was not made from this" in done.stderr
    assert _quietly(checkout) and _works(checkout)


def test_two_at_once_make_one_environment(tmp_path: Path) -> None:
    folder = _checkout(tmp_path / "twice")
    done: list[subprocess.CompletedProcess[str]] = []
    threads = [threading.Thread(target=lambda: done.append(_set_up(folder))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    lines = sorted("".join(one.stderr for one in done).splitlines())
    assert [one.returncode for one in done] == [0, 0]
    assert [line.split(" ")[1] for line in lines] == ["making", "waiting"]
    assert _works(folder)


def test_a_failed_installation_is_not_a_whole_one(checkout: Path) -> None:
    wrong = re.sub("sha256:....", "sha256:0000", _locked("iniconfig"))
    (checkout / REQUIREMENTS).write_text(_locked("uv", "pygments") + wrong, encoding="utf-8")
    failed = _set_up(checkout, UV_NO_CACHE="1")
    assert failed.returncode and "mismatch" in failed.stderr
    assert _set_up(checkout, UV_NO_CACHE="1").returncode


@pytest.mark.parametrize("python", ["/bin/ls", "/nowhere"])
def test_a_python_that_is_none_is_refused_by_name(python: str, tmp_path: Path) -> None:
    done = _set_up(_checkout(tmp_path / "c"), PYTHON=python)
    assert (done.returncode, done.stderr) == (1, f"error: PYTHON={python} is not Python 3.11.\n")


@pytest.mark.parametrize(
    ("python", "advice"),
    [
        ("", "there is no Python 3.11 here; install it (Debian 12: apt install python3.11-venv), install uv"),
        ('-m*) exit 1;; *_base_executable*) echo "$0";;', "and there is no uv: apt install python3.11-venv"),
    ],
)
def test_a_machine_without_python_or_pip_gets_advice(python: str, advice: str, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in TOOLS:
        (programs / tool).symlink_to(shutil.which(tool) or pytest.fail(f"{tool} is missing"))
    if python:
        script = f'#!/bin/sh\ncase "$1$2" in {python} *) exec {sys.executable} "$@";; esac\n'
        (programs / "python3.11").write_text(script, encoding="utf-8")
        (programs / "python3.11").chmod(0o755)
    done = _set_up(_checkout(tmp_path / "c"), PATH=str(programs))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and advice in done.stderr


def test_uv_uses_the_index_of_pip(tmp_path: Path) -> None:
    paths: list[str] = []

    class Index(http.server.SimpleHTTPRequestHandler):
        """An index without packages."""

        def do_GET(self) -> None:  # pylint: disable=invalid-name
            """Answer 404, and keep the path."""
            paths.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:  # pylint: disable=arguments-differ
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index) as index:
        threading.Thread(target=index.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{index.server_port}/simple"
        none = {"PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}
        done = _set_up(_checkout(tmp_path / "c"), PIP_INDEX_URL=url, UV_CACHE_DIR=str(tmp_path / "cache"), **none)
        index.shutdown()
    assert done.returncode and "/simple/pygments/" in paths, done.stderr


def test_settings_for_other_projects_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "elsewhere/ops/ci").mkdir(parents=True)
    odd = dict.fromkeys(("PIP_USER", "PIP_REQUIRE_VIRTUALENV", "UV_SYSTEM_PYTHON", "PYTHONSAFEPATH"), "1")
    odd |= dict.fromkeys(("PIP_TARGET", "PIP_PREFIX", "PIP_CONSTRAINT", "UV_CONSTRAINT", "PYTHONHOME"), "/nowhere")
    odd |= {"UV_EXCLUDE_NEWER": "2010-01-01", "CDPATH": str(tmp_path / "elsewhere"), "TMPDIR": "/nowhere"}
    folder = _checkout(tmp_path / "c")
    command = ["ops/ci/setup"]  # relative, as make calls it
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "VIRTUAL_ENV")} | odd
    env["PATH"] = "/usr/local/bin:/usr/bin:/bin"  # without the locked uv: pip gets it
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert _works(folder) and not list((folder / "build").iterdir())
    assert not (tmp_path / "elsewhere/.venv").exists()


def _mounted(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Set up a folder after a mount that only its process sees; skip where this user may not mount."""
    unshare = ["unshare", "--mount", "--map-root-user", "bash", "-euc"]
    if subprocess.run([*unshare[:3], "true"], check=False).returncode:
        pytest.skip("this user may not mount")
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = f"{command} && cd . && exec ops/ci/setup"
    return subprocess.run([*unshare, command], cwd=folder, env=env, capture_output=True, text=True, check=False)


MOUNTS = {
    "cannot be written by this user: clone the repository into a folder of your own.": "mount --bind '{0}' '{0}' && "
    "mount -o remount,bind,ro '{0}' && cd '{0}'",
    "and the free space (df -h .), and run the command again.": "mkdir .venv build && "
    "mount -t tmpfs -o size=1m none .venv && mount -t tmpfs -o size=1m none build",
}


@pytest.mark.parametrize("advice", MOUNTS)
def test_a_disk_that_takes_nothing_ends_in_advice(advice: str, tmp_path: Path) -> None:
    folder = _checkout(tmp_path / "c")
    done = _mounted(folder, MOUNTS[advice].format(folder))
    assert done.returncode and done.stderr.endswith(f"{advice}\n")
    assert _set_up(folder).returncode == 0 and _works(folder), "the next try works"


def test_without_a_network_the_last_line_is_advice(tmp_path: Path) -> None:
    folder = _checkout(tmp_path / "c")
    none = {"PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "", "UV_NO_CACHE": "1"}
    none |= {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    done = _set_up(folder, **none)
    assert done.returncode and done.stderr.splitlines()[-1].startswith("error: the packages are not all installed;")
    assert "Check the network, pip's index" in done.stderr and not (folder / ".venv/.ready").exists()
    assert _set_up(folder).returncode == 0 and _works(folder)
