"""`on-time ci reproduce`: check that a rerun of the commit with another number of threads is byte-identical."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

from stages.git import git


def reproduce() -> None:
    """Clone, rerun with --force, and fail on any difference from the commit."""
    threads = "1" if os.environ.get("OMP_NUM_THREADS") != "1" else "2"
    with tempfile.TemporaryDirectory(prefix="on-time-reproduce-") as clone:
        git("clone", "--quiet", ".", clone)
        shutil.copytree("data", f"{clone}/data", dirs_exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": threads}
        environment.pop("MLFLOW_TRACKING_URI", None)
        subprocess.run(["dvc", "repro", "--force", "--no-run-cache"], cwd=clone, env=environment, check=True)
        changed = git("-C", clone, "status", "--porcelain") + git("-C", clone, "diff", "--stat")
    if changed:
        sys.exit(f"error: the rerun with {threads} thread(s) differs from the commit:\n{changed}")
    print(f"The rerun with {threads} thread(s) gave the committed dvc.lock and reports, byte for byte.")
