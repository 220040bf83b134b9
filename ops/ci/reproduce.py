"""`on-time ci reproduce`: check that a rerun of the commit in an odd environment is byte-identical.

The rerun has another number of threads and odd settings: a time zone database in which New York is as late
as Tokyo, an ASCII locale, umask 077, git's `core.autocrlf`, and inherited variables of MLflow. A rerun in the same
environment would prove little, as it shares everything in which two machines differ.
"""

import importlib.resources
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from app.errors import Refused
from stages.base.git import git

ODD = {
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "core.autocrlf",
    "GIT_CONFIG_VALUE_0": "true",
    "GOMP_SPINCOUNT": "1",
    "http_proxy": "http://127.0.0.1:9",
    "LC_ALL": "C",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "true",
    "MLFLOW_EXPERIMENT_NAME": "odd",
    "MLFLOW_RUN_CONTEXT": "odd",
    "MLFLOW_RUN_ID": "odd",
    "PROMETHEUS_MULTIPROC_DIR": "/nowhere",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONHASHSEED": "1",
    "PYTHONUTF8": "0",
    "TZ": "Asia/Tokyo",
}
"""Inherited variables that must change nothing; docs/environment.md."""
UMASK = 0o077


def write_wrong_zones(folder: Path) -> None:
    """Write a time zone database that gives all of America the time of Tokyo."""
    zones = importlib.resources.files("tzdata") / "zoneinfo"
    (folder / "America").mkdir(parents=True)
    for zone in (zones / "America").iterdir():
        if zone.is_file():
            (folder / "America" / zone.name).write_bytes((zones / "Asia" / "Tokyo").read_bytes())


def rerun(folder: Path, **environment: str) -> None:
    """Clone the commit that is checked out to a folder, with the data, and run all stages there."""
    git("clone", "--quiet", ".", str(folder))
    shutil.copytree("data", folder / "data", dirs_exist_ok=True)
    variables = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"} | environment
    command = ["dvc", "repro", "--force", "--no-run-cache"]
    subprocess.run(command, cwd=folder, env=variables, umask=UMASK, check=True)


def reproduce_pipeline() -> None:
    """Rerun the commit in a clone, and fail on any difference from it."""
    threads = "1" if os.environ.get("OMP_NUM_THREADS") != "1" else "2"
    with tempfile.TemporaryDirectory(prefix="on-time-reproduce-") as name:
        folder, zones = Path(name) / "clone", Path(name) / "zones"
        write_wrong_zones(zones)
        rerun(folder, **ODD, OMP_NUM_THREADS=threads, PYTHONTZPATH=str(zones))
        changed = git("-C", str(folder), "status", "--porcelain") + git("-C", str(folder), "diff", "--stat")
    if changed:
        raise Refused(f"the rerun with {threads} thread(s) in an odd environment differs from the commit:\n{changed}")
    print(f"The rerun with {threads} thread(s) in an odd environment gave the committed files, byte for byte.")
