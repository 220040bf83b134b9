"""A small project to try things in: this working tree in a repository of its own, with a cut of the data."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

FIRST, LAST = "2013-01-01", "2013-03-31"
MONTHS = ["1", "2", "3"]
IDENTITY = ["-c", "user.name=test", "-c", "user.email=test@example.com"]


def git(path: Path, *arguments: str) -> str:
    """Run git in a folder and return what it prints."""
    done = subprocess.run(["git", *IDENTITY, *arguments], cwd=path, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(path: Path, message: str) -> str:
    """Commit all that is there, and return the commit."""
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(path, "rev-parse", "HEAD")


def make_repository(path: Path) -> str:
    """Make a folder a repository with what is in it, and return its first commit."""
    git(path, "init", "--quiet", "--initial-branch=main")
    return commit(path, "The beginning")


def copy_tree(root: Path, target: Path) -> None:
    """Copy the files that git knows or would add, as they are in the working tree."""
    listed = git(root, "ls-files", "-co", "--exclude-standard", "-z").split("\0")
    for name in filter(None, listed):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


def read_params(path: Path) -> dict[str, Any]:
    """Return params.yaml of a project."""
    return dict(yaml.safe_load((path / "params.yaml").read_text(encoding="utf-8")))


def write_params(path: Path, p: dict[str, Any]) -> None:
    """Write params.yaml of a project."""
    (path / "params.yaml").write_text(yaml.safe_dump(p, sort_keys=False), encoding="utf-8")


def pin(path: Path, p: dict[str, Any], table: str) -> None:
    """Put the digest of a raw table into the parameters."""
    p["data"]["tables"][table] = hashlib.sha256((path / f"data/{table}.csv").read_bytes()).hexdigest()


def cut(path: Path, every: int = 4) -> dict[str, Any]:
    """Keep a part of the flights of January to March, and return parameters that fit; `write_params` writes them."""
    p = read_params(path)
    rows = {}
    for name, step in (("flights", every), ("weather", 1)):
        table = pd.read_csv(path / f"data/{name}.csv", dtype=str, keep_default_na=False)
        kept = table[table["month"].isin(MONTHS)].iloc[::step]
        kept.to_csv(path / f"data/{name}.csv", index=False)
        rows[name] = [len(kept), len(kept)]
        pin(path, p, name)
    p["problem"] |= {"first_date": FIRST, "last_date": LAST, "flights_per_day": [1, 400]}
    p["validate"]["rows"] |= rows
    flights = [name for name in p["validate"]["missing_share"] if name.startswith("flights.")]
    p["validate"]["missing_share"] |= dict.fromkeys(flights, 0.1)
    p["featurize"] |= {"train": [FIRST, "2013-02-28"], "test": ["2013-03-01", LAST], "reference_rows": 500}
    p["train"] |= {"rounds": 20, "fold_months": [2], "min_data_in_leaf": 20, "threshold_rule": "alert_share"}
    p["evaluate"]["bootstrap"] = 50
    return p
