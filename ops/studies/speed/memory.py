"""The memory of a process and its descendants, as PSS: pages that several of them share count once."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress

import psutil

POLL_SECONDS = 0.1
MOST_SHARE = 0.05
"""Largest share of the time that is spent on reading PSS, for which Linux goes through all pages: 20 ms per GB."""


def peak(process: subprocess.Popen[str]) -> int:
    """Wait until a process ends; return the largest memory of it and its descendants, bytes."""
    most, root = 0, psutil.Process(process.pid)
    while process.poll() is None:
        before = time.process_time()
        total = 0
        with suppress(psutil.NoSuchProcess):
            for each in [root, *root.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):  # it has ended
                    total += each.memory_full_info().pss
        most = max(most, total)
        spent = time.process_time() - before
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(POLL_SECONDS, spent / MOST_SHARE))
    return most
