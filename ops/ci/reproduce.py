"""`on-time ci reproduce`: check that a rerun of the commit with another number of threads is byte-identical."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

COMPARED = ["dvc.lock", "reports"]


def reproduce() -> None:
    """Clone, rerun with --force, and fail on any difference in dvc.lock or the reports."""
    here = Path.cwd()
    threads = "1" if os.environ.get("OMP_NUM_THREADS") != "1" else "2"
    with tempfile.TemporaryDirectory(prefix="on-time-verify-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(here), str(clone)], check=True)
        (clone / "data").mkdir()
        for file in (here / "data").iterdir():
            (clone / "data" / file.name).write_bytes(file.read_bytes())
        environment = os.environ | {"OMP_NUM_THREADS": threads}
        environment.pop("MLFLOW_TRACKING_URI", None)
        subprocess.run(["dvc", "repro", "--force", "--no-run-cache"], cwd=clone, env=environment, check=True)
        difference = subprocess.run(["git", "diff", "--stat", "--exit-code", "--", *COMPARED], cwd=clone, check=False)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, check=True, capture_output=True, text=True)
    if difference.returncode or status.stdout:
        sys.exit(f"error: the rerun with {threads} thread(s) differs from the commit:\n{status.stdout}")
    print(f"The rerun with {threads} thread(s) gave the committed {' and '.join(COMPARED)}, byte for byte.")
