"""A PostgreSQL cluster for the tests, from the programs that are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from pathlib import Path

import psycopg
import pytest

from tests.support.processes import free_port


class Postgres:
    """A PostgreSQL cluster of its own on loopback, which can be stopped and started."""

    def __init__(self, programs: Path, folder: Path, password: str = "") -> None:
        self.programs, self.folder, self.port = programs, folder, free_port()
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []  # it refuses to run as root
        if self._as:
            shutil.chown(folder, "postgres")
        access = ["-A", "trust"]
        if password:
            (folder / "password").write_text(password, encoding="utf-8")
            access = ["-A", "scram-sha-256", "--pwfile", str(folder / "password")]
        self._run("initdb", "-U", "postgres", *access, "-E", "UTF8", "--locale=C", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self.programs / program), "-D", str(self.folder / "data"), *arguments]
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-o", options, "-l", str(self.folder / "log"))

    def stop(self) -> None:
        """Stop it, whoever is connected."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    def database(self) -> str:
        """Return the URL of a new, empty database."""
        name = f"d{uuid.uuid4().hex}"
        with psycopg.connect(host="127.0.0.1", port=self.port, user="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{name}"


def postgres_programs() -> Path:
    """Return the folder of PostgreSQL's programs; skip where there are none, outside CI."""
    found = [shutil.which("initdb"), *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")))]
    programs = [Path(path).parent for path in found if path]
    if not programs and not os.environ.get("CI"):
        pytest.skip("no PostgreSQL on this machine (Debian: apt install postgresql)")
    return programs[-1]
