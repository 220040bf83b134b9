"""The processors available to this process; by default LightGBM starts a thread per processor of the machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def available(cgroups: Path = CGROUPS) -> int:
    """Return the number of processors in the CPU affinity, or the container's CPU quota, rounded up, if it is smaller.

    The quota is cgroup v2's `cpu.max`, or v1's `cpu.cfs_quota_us` and `cpu.cfs_period_us`.
    """
    processors = len(os.sched_getaffinity(0))
    quota, period = _quota(cgroups)
    return min(processors, math.ceil(quota / period)) if quota > 0 else processors


def _quota(cgroups: Path) -> tuple[int, int]:
    """Return CPU quota and period in microseconds; a quota of -1 is unlimited."""
    try:
        limit = cgroups / "cpu.max"
        if limit.exists():
            quota, period = limit.read_text(encoding="utf-8").split()
            return (-1 if quota == "max" else int(quota)), int(period)
        files = (cgroups / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
        quota, period = (file.read_text(encoding="utf-8") for file in files)
        return int(quota), int(period)
    except (OSError, ValueError):
        return -1, 1  # no cgroups, or an unknown layout
