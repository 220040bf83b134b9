"""JSON and YAML files that git tracks; a merge may have left conflict markers in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from stages.errors import FileInvalid

PIPELINE_FILES = tuple(map(Path, ("dvc.yaml", "dvc.lock", "data.dvc", "params.yaml", "reports/metrics.json")))
"""The files by which DVC decides what to run."""
MARKERS = ("<<<<<<< ", "||||||| ", ">>>>>>> ")


def parse(text: str, path: Path, commit: str = "") -> Any:
    """Parse JSON or YAML, by the suffix of its path; raise FileInvalid with the line of a conflict marker or error.

    With `commit`, the text is that of a commit.
    """
    place = f"{commit}:{path}" if commit else str(path)
    restore = (
        "Compare with another commit: make gate BASE=<revision>." if commit else f"`git checkout {path}` restores it."
    )
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(MARKERS):
            resolve = (
                f"Take one side (`git checkout --theirs {path}` during the merge, `git checkout HEAD^ -- {path}` "
                "after it), resolve params.yaml and the code, then `make repro`."
            )
            raise FileInvalid(f"{place}:{number}: conflict marker {line[:40]!r}. {restore if commit else resolve}")
    try:
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as err:
        reason = " ".join(str(err).split())[:200]
        raise FileInvalid(f"{place} cannot be read: {reason}. {restore}") from err


def load(path: Path) -> Any:
    """Return the content of a JSON or YAML file; raise FileInvalid if it cannot be read."""
    try:
        return parse(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as err:
        raise FileInvalid(f"{path} cannot be read: {err}. `git checkout {path}` restores it.") from err


def check() -> None:
    """Raise FileInvalid if a file of the pipeline is not JSON or YAML."""
    for path in PIPELINE_FILES:
        if path.exists():
            load(path)
