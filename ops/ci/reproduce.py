"""`on-time ci reproduce`: check that a rerun of the commit with another number of threads is byte-identical."""

import os
import shutil
import subprocess
import tempfile

from app.errors import Refused
from stages.git import git


def clone(folder: str) -> None:
    """Clone the commit that is checked out to an empty folder, with the data."""
    git("clone", "--quiet", ".", folder)
    shutil.copytree("data", f"{folder}/data", dirs_exist_ok=True)


def rerun(folder: str, *options: str, quiet: bool = False, **environment: str) -> None:
    """Run all stages in a clone, with an MLflow of its own."""
    variables = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | environment
    out, err = (subprocess.DEVNULL, subprocess.DEVNULL) if quiet else (None, None)
    command = ["dvc", "repro", "--force", *options]
    subprocess.run(command, cwd=folder, env=variables, check=True, stdout=out, stderr=err)


def reproduce() -> None:
    """Clone, rerun with --force, and fail on any difference from the commit."""
    threads = "1" if os.environ.get("OMP_NUM_THREADS") != "1" else "2"
    with tempfile.TemporaryDirectory(prefix="on-time-reproduce-") as folder:
        clone(folder)
        rerun(folder, "--no-run-cache", OMP_NUM_THREADS=threads)
        changed = git("-C", folder, "status", "--porcelain") + git("-C", folder, "diff", "--stat")
    if changed:
        raise Refused(f"the rerun with {threads} thread(s) differs from the commit:\n{changed}")
    print(f"The rerun with {threads} thread(s) gave the committed dvc.lock and reports, byte for byte.")
