"""How many processors there are for this process: LightGBM would start a thread for each one of the machine."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def available(cgroups: Path = CGROUPS) -> int:
    """Return the processors that this process may use, or as many as the container's CPU quota lasts for, if fewer.

    The quota is cgroup v2's `cpu.max`, or v1's `cpu.cfs_quota_us` and `cpu.cfs_period_us`.
    """
    processors = len(os.sched_getaffinity(0))
    quota, period = _quota(cgroups)
    return min(processors, math.ceil(quota / period)) if quota > 0 else processors


def _quota(cgroups: Path) -> tuple[int, int]:
    """Return the microseconds of processor time in each period, and the period; a quota of -1 is none."""
    try:
        if (limit := cgroups / "cpu.max").exists():
            quota, period = limit.read_text(encoding="utf-8").split()
            return (-1 if quota == "max" else int(quota)), int(period)
        files = (cgroups / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
        quota, period = (file.read_text(encoding="utf-8") for file in files)
        return int(quota), int(period)
    except (OSError, ValueError):
        return -1, 1  # no cgroups, or others than these
