"""The memory of a process and its descendants, as PSS: pages that several of them share count once."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
POLL_SECONDS = 0.1
MOST_SHARE = 0.05
"""Largest share of the time that is spent on reading PSS, for which Linux goes through all pages: 20 ms per GB."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def peak(process: subprocess.Popen[str]) -> int:
    """Wait until a process ends; return the largest memory of it and its descendants, bytes."""
    most = 0
    while True:
        before = time.process_time()
        pids = family(process.pid)
        if sum(map(_resident, pids)) > most:  # PSS is not larger
            most = max(most, sum(map(_proportional, pids)))
        spent = time.process_time() - before
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(POLL_SECONDS, spent / MOST_SHARE))
            return most


def family(pid: int) -> list[int]:
    """Return the ids of a process and its descendants."""
    children: dict[int, list[int]] = {}
    for path in PROC.glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parent = int(path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = [pid]
    for one in found:  # grows on the way
        found += children.get(one, [])
    return found


def _resident(pid: int) -> int:
    with suppress(OSError):
        return int((PROC / f"{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES
    return 0


def _proportional(pid: int) -> int:
    with suppress(OSError):
        for line in (PROC / f"{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
