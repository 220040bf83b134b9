"""The files of a journal in SQLite: a connection is checked against those that it was opened on."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DisconnectionError


class JournalMoved(DisconnectionError):
    """The files of a connection are no longer those at the journal's path."""


def watch(engine: Engine) -> None:
    """Set up each new connection to SQLite, and open another one where the files have been removed or replaced."""

    @event.listens_for(engine, "connect")
    def opened(connection: sqlite3.Connection, record: Any) -> None:
        path = file_of(engine.url)
        with _alone(path):
            connection.execute("PRAGMA page_size = 16384")  # for a new file; a block has many kB
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("PRAGMA synchronous = NORMAL")  # commits survive a killed process
            connection.execute("PRAGMA temp_store = MEMORY")  # a read-only container has no folder for temporary files
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # opens the sidecar files
            if path:
                record.info.update(path=path, look=partial(_identities, engine.url, mode == "wal"))
                record.info["files"] = record.info["look"]()

    @event.listens_for(engine, "checkout")
    def taken(connection: sqlite3.Connection, record: Any, _: Any) -> None:
        if moved(record.info):
            with _alone(record.info["path"]):
                _leave(connection, record.info)
            raise JournalMoved("the files of the journal were removed or replaced")


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """Keep other connections, of this process and of others, from opening or leaving the files meanwhile."""
    with ExitStack() as stack:
        with suppress(OSError):  # the folder is gone, or its file system has no locks
            folder = os.open(os.path.dirname(path), os.O_RDONLY)
            stack.callback(os.close, folder)
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield


def _leave(connection: sqlite3.Connection, info: dict[Any, Any]) -> None:
    """Recreate missing -wal and -shm files; remove an emptied file and its leftovers.

    Once another connection has reopened the journal, the former sidecars are unused: two pairs of them
    for one file damage it. SQLite would write the former contents of the sidecars into a file that was emptied in
    place.
    """
    former, found, path = info["files"], info["look"](), info["path"]
    if any(new not in (None, old) for new, old in zip(found[1:], former[1:], strict=True)):
        return
    emptied = os.path.isfile(path) and not os.path.getsize(path)
    if not emptied:
        with suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for end in ("", "-wal", "-shm")[0 if emptied else 1 : len(former)]:
        with suppress(OSError):
            os.unlink(path + end)


def file_of(url: URL) -> str:
    """Return the path of a SQLite database, symbolic links resolved; empty if it is in memory, or a URI."""
    name = url.database or ""
    return "" if not name or name.startswith((":", "file:")) else os.path.realpath(name)


def _identities(url: URL, wal: bool) -> list[tuple[int, int] | None]:
    """Return device and inode of a database and, with `wal`, of its sidecar files; None for one that does not exist.

    An empty file counts as none: with sidecar files, a database has at least a header.
    """
    found: list[tuple[int, int] | None] = []
    path = file_of(url)
    for end in ("", "-wal", "-shm") if wal else ("",):
        try:
            status = os.stat(path + end)
            found.append((status.st_dev, status.st_ino) if status.st_size or end or not wal else None)
        except OSError:
            found.append(None)
    return found


def moved(info: dict[Any, Any]) -> bool:
    """Return whether the files of a connection, from its `info`, are no longer at their paths."""
    return "look" in info and (None in info["files"] or info["look"]() != info["files"])
