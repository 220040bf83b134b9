"""`on-time data add` and `status` in a clone: all files or none, at any moment; with and without the DVC remote."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.repositories.clone import Clone, make_clone
from tests.support.repositories.growth import TIMED, months, start_with
from tests.support.repositories.scratch import commit, git, read_params, write_params

pytestmark = pytest.mark.long

EVERY = 8
ADD = ["./on-time", "data", "add"]
KILLED = """
import os, signal, sys
from pathlib import Path
from ops.cli import main
from ops.data import add

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv.pop(1)
if where == "before the folder":
    add.write_json = die
elif where == "before the parameters":
    add.write_params = die
elif where == "within the parameters":
    os.fsync = die
else:
    import ops.cli.data
    ops.cli.data.dvc = die
main()
"""


@pytest.fixture(scope="module", name="first")
def two_months(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A repository with January and February as first data, committed; and the files of March."""
    folder = tmp_path_factory.mktemp("growth")
    clone = make_clone(folder / "clone")
    (clone.path / ".venv").symlink_to(Path(sys.prefix))
    files = []
    for table in TIMED:
        files.append(folder / f"{table}-2013-03.csv")
        months(clone.path, table, 3, 3, EVERY).to_csv(files[-1], index=False)
    start_with(clone.path, 2, EVERY)
    clone.run("dvc", "add", "--quiet", "data")
    commit(clone.path, "January and February")
    return clone.path, files


@pytest.fixture(name="march")
def files_of_march(first: tuple[Path, list[Path]]) -> list[Path]:
    """The files of March."""
    return first[1]


@pytest.fixture(name="clone")
def fresh_copy(first: tuple[Path, list[Path]], tmp_path: Path) -> Clone:
    """A copy of the repository with the first data."""
    shutil.copytree(first[0], tmp_path / "clone", symlinks=True)
    return Clone(tmp_path / "clone")


def content(clone: Clone) -> dict[str, bytes]:
    """Return the files that make the data: data/, its digest and the parameters."""
    paths = [clone.path / "params.yaml", clone.path / "data.dvc", *(clone.path / "data").rglob("*")]
    return {str(path.relative_to(clone.path)): path.read_bytes() for path in paths if path.is_file()}


class Content(dict[str, bytes]):
    """The data after an addition that took some seconds."""

    seconds: float


@pytest.fixture(scope="module", name="grown")
def undisturbed(first: tuple[Path, list[Path]], tmp_path_factory: pytest.TempPathFactory) -> Content:
    """The data with March, added without an interruption."""
    path, march = first
    clone = Clone(tmp_path_factory.mktemp("undisturbed") / "clone")
    shutil.copytree(path, clone.path, symlinks=True)
    began = time.monotonic()
    clone.run(*ADD, *map(str, march))
    grown = Content(content(clone))
    grown.seconds = time.monotonic() - began
    return grown


def status(clone: Clone) -> dict[str, Any]:
    """Return what `on-time data status` prints for programs."""
    return dict(json.loads(clone.run("./on-time", "data", "status", "--json").stdout))


def test_month_is_added(clone: Clone, march: list[Path]) -> None:
    before = status(clone)
    assert before["period"] == ["2013-01-01", "2013-02-28"] and before["additions"] == {}
    assert "Next: `make repro`" in clone.run(*ADD, *map(str, march)).stdout
    after = status(clone)
    assert after["period"] == ["2013-01-01", "2013-03-31"] and after["gaps"] == []
    for table in TIMED:
        found = after["additions"]["0001"]["tables"][table]
        assert found["days"] == ["2013-03-01", "2013-03-31"]
        assert after["tables"][table]["rows"] == before["tables"][table]["rows"] + found["new"]
        assert found["read"] == found["new"] + sum(found["quarantined"].values())
    assert after["dvc"] != before["dvc"] and set(clone.git_status().split()) == {"M", "data.dvc", "params.yaml"}
    clone.run("dvc", "repro", "validate")
    assert "data.dvc" in clone.git_status()
    grown = content(clone)
    assert "data/ is as it was" in clone.run(*ADD, *map(str, march)).stdout
    assert content(clone) == grown


def test_one_bad_file_refuses_all(clone: Clone, march: list[Path], tmp_path: Path) -> None:
    cut = tmp_path / "weather-2013-03.csv"
    cut.write_bytes(march[1].read_bytes()[:-20])
    before = content(clone)
    refused = clone.run(*ADD, str(march[0]), str(cut), check=False)
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1
    assert "nothing was added" in refused.stderr and "it was cut off" in refused.stderr
    assert content(clone) == before


@pytest.mark.parametrize("where", ["before the folder", "before the parameters", "within the parameters", "before DVC"])
def test_killed_addition(where: str, clone: Clone, march: list[Path], grown: Content) -> None:
    """The data are as before, or complete; what is left is named and removed, and the next addition works."""
    before = content(clone)
    killed = clone.run(sys.executable, "-c", KILLED, where, "data", "add", *map(str, march), check=False)
    assert killed.returncode == -signal.SIGKILL
    left = content(clone)
    listed = read_params(clone.path)["data"].get("added", {})
    if where == "before DVC":
        assert {name for name in left if name.startswith("data/added/")} == {f"data/added/{name}" for name in listed}
        assert left["data.dvc"] == before["data.dvc"]
    else:
        assert {name: left[name] for name in before} == before and not listed
    if where == "before the parameters":
        stopped = clone.run("dvc", "repro", "validate", check=False)
        assert stopped.returncode != 0 and "The next `on-time data add` sets it aside" in stopped.stderr
        clone.run("git", "checkout", "--quiet", "data.dvc")  # which `dvc repro` had hashed
        named = clone.run("./on-time", "data", "status", check=False)
        assert named.returncode == 1 and "data/added/0001" in named.stderr and content(clone) == left
    clone.run(*ADD, *map(str, march))
    assert content(clone) == grown
    aside = list((clone.path / "build/set-aside").glob("0001-*/flights.parquet"))
    assert len(aside) == (where in ("before the parameters", "within the parameters"))


def test_killed_at_any_time(clone: Clone, march: list[Path], grown: Content) -> None:
    before, steps = content(clone), 6
    for step in range(steps):
        with subprocess.Popen([*ADD, *map(str, march)], cwd=clone.path, stdout=subprocess.DEVNULL) as process:
            try:
                process.wait(grown.seconds * (step + 1) / steps)
            except subprocess.TimeoutExpired:
                process.kill()
        left = content(clone)
        if read_params(clone.path)["data"].get("added"):
            assert left | {"data.dvc": b""} == grown | {"data.dvc": b""}
            break
        assert {name: left[name] for name in before} == before
    clone.run(*ADD, *map(str, march))
    assert content(clone) == grown


def test_second_addition_at_once_is_refused(clone: Clone, march: list[Path]) -> None:
    lock = "import fcntl; f = open('build/data.lock', 'w'); fcntl.flock(f, 2); print(1, flush=True); input()"
    (clone.path / "build").mkdir(exist_ok=True)
    command = [sys.executable, "-c", lock]
    with subprocess.Popen(command, cwd=clone.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline()
        refused = clone.run(*ADD, *map(str, march), check=False)
        holder.communicate(b"\n")
    assert refused.returncode == 1 and "another `on-time data add` is running" in refused.stderr


def test_growth_comes_from_the_remote(clone: Clone, march: list[Path], tmp_path: Path) -> None:
    """A clone without the remote is told at which commit it can do without."""
    commit(clone.path, "A change that leaves the data and params.yaml alone")
    pinned = git(clone.path, "rev-parse", "--short", "HEAD")
    clone.run("dvc", "remote", "add", "--default", "team", str(tmp_path / "remote"))
    clone.run(*ADD, *map(str, march))
    commit(clone.path, "Add March")
    clone.run("dvc", "push", "--quiet", "data")
    copies = [Clone(tmp_path / name) for name in ("with", "without")]
    for copy in copies:
        subprocess.run(["git", "clone", "--quiet", str(clone.path), str(copy.path)], check=True)
        (copy.path / ".venv").symlink_to(Path(sys.prefix))
    copies[0].run("./on-time", "data", "fetch")
    assert content(copies[0]) == content(clone)
    (tmp_path / "remote").rename(tmp_path / "gone")
    (copies[1].path / "data").mkdir()
    for table in read_params(clone.path)["data"]["tables"]:  # as the source package would bring them
        shutil.copy(clone.path / f"data/{table}.csv", copies[1].path / "data")
    told = copies[1].run("./on-time", "data", "fetch", check=False)
    assert told.returncode == 1 and "only the DVC remote has it" in told.stderr
    assert f"`git switch --detach {pinned} && make repro`" in told.stderr
    copies[1].run("git", "switch", "--quiet", "--detach", pinned)
    copies[1].run("./on-time", "data", "fetch")
    copies[1].run("dvc", "repro", "featurize")
    assert "data.dvc" not in copies[1].git_status()


def test_inbox_is_added_once(clone: Clone, march: list[Path], tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for path in march:
        shutil.copy(path, inbox)
    for name in ("README.txt", "notes.csv", "._flights-2013-03.csv"):
        (inbox / name).write_text("not a table", encoding="utf-8")
    clone.run("dvc", "remote", "add", "--default", "team", str(tmp_path / "remote"))
    done = clone.run(*ADD, "--inbox", str(inbox), "--push")
    added = done.stdout
    assert done.stderr.count("left out, as it is not named after a table") == 3
    assert "Next: `make repro`" in added and "dvc push" not in added
    assert len([path for path in (tmp_path / "remote").rglob("*") if path.is_file()]) >= 9
    for path in inbox.glob("*.csv"):
        path.rename(path.with_name(f"{path.stem}-again.csv"))
    grown = content(clone)
    again = clone.run(*ADD, "--inbox", str(inbox), "--push").stdout
    assert "Nothing to add" in again and "rows read" not in again and content(clone) == grown
    lost = clone.run(*ADD, "--inbox", str(tmp_path / "nowhere"), check=False)
    assert lost.returncode == 1 and "cannot be read" in lost.stderr


def test_windows_follow_the_newest_complete_month(clone: Clone, march: list[Path]) -> None:
    p = read_params(clone.path)
    p["featurize"] = {k: v for k, v in p["featurize"].items() if k not in ("train", "test")}
    p["featurize"] |= {"train_days": 40, "test_days": 14}
    p["train"] |= {"fold_months": 1}
    write_params(clone.path, p)
    clone.run(*ADD, *map(str, march))
    clone.run("./on-time", "model", "retrain", "--now")
    evaluation = json.loads((clone.path / "reports/evaluation.json").read_text(encoding="utf-8"))
    days = {name: (rows["first"], rows["last"]) for name, rows in evaluation["rows"].items()}
    assert days == {"train": ("2013-02-06", "2013-03-17"), "test": ("2013-03-18", "2013-03-31")}
    refused = clone.run("./on-time", "model", "retrain", "--now", "--until", "2013-03-20", check=False)
    assert refused.returncode != 0 and "leave out --until" in refused.stderr
