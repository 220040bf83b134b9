"""`on-time ci check-lock`: check that dvc.lock matches this commit's code, parameters and data.

It needs no data and runs no stage. `on-time ci reproduce` proves that a rerun gives the same bytes.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from app.errors import Refused
from stages.base import git, yaml_files
from stages.problem_kit.params import changes

ABSENT = {"deleted", "not in cache"}
HELP = "`make repro`, then commit dvc.lock and reports/ with the change that made them."


class LockStale(Refused):
    """dvc.lock does not match the code, the parameters or the data."""


def ignored(path: str) -> bool:
    """Return whether git ignores a path, so that a clone lacks it."""
    return git.run("check-ignore", "--quiet", path).returncode == 0


def parameter(stage: str, key: str) -> list[str]:
    """Return the values below a key that differ between dvc.lock and params.yaml."""
    lock = yaml_files.load(Path("dvc.lock"))["stages"][stage]["params"]["params.yaml"]
    now: Any = yaml_files.load(Path("params.yaml"))
    for part in key.split("."):
        now = now.get(part, {}) if isinstance(now, dict) else {}
    return [f"params.yaml: {name}: {old} → {new}" for name, old, new in changes(lock.get(key, {}), now, key)]


def differences(stage: str, entries: list[Any]) -> list[str]:
    """Return the changes of a stage in `dvc status`, except files that are absent in every clone."""
    found = []
    for entry in entries:
        # "changed command", "always changed"
        if isinstance(entry, str):
            found.append(entry)
            continue
        for paths in entry.values():
            # a checksum of the stage itself
            if not isinstance(paths, dict):
                found.append(f"{paths}: changed")
                continue
            for path, state in paths.items():
                # the keys of params.yaml
                if isinstance(state, dict):
                    found += [line for key in state for line in parameter(stage, key)]
                elif not (state in ABSENT and ignored(path)):
                    found.append(f"{path}: {state}")
    return [f"{stage}: {line}" for line in found]


def broken_chain() -> list[str]:
    """Return dependencies whose digest differs from the digest of the same path as an output (a wrong merge)."""
    files = [yaml_files.load(Path(name)) for name in ("data.dvc", "dvc.lock")]
    stages = files[1]["stages"]
    outs = {out["path"]: out.get("md5") for stage in [files[0], *stages.values()] for out in stage.get("outs", [])}
    return [
        f"{name}: {dep['path']}: {dep.get('md5', 'none')[:9]}, but {outs[dep['path']][:9]} is what makes it"
        for name, stage in stages.items()
        for dep in stage.get("deps", [])
        if dep["path"] in outs and dep.get("md5") != outs[dep["path"]]
    ]


def compare_lock() -> str:
    """Check the lock; raise LockStale with the differences."""
    yaml_files.check()
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LockStale(f"`dvc status` failed: {done.stderr.strip()[-500:]}")
    changed = [line for stage, entries in json.loads(done.stdout).items() for line in differences(stage, entries)]
    if Path("dvc.lock").exists():
        changed += broken_chain()
    if changed:
        raise LockStale("dvc.lock is not what this commit makes:\n  " + "\n  ".join(changed) + f"\nRun {HELP}")
    return "dvc.lock belongs to this commit's code, parameters and data."
