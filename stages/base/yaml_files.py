"""JSON and YAML files that git tracks; a merge may have left conflict markers in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.base.errors import FileInvalid

PARAMS_NAME = "params.yaml"
PIPELINE_FILES = tuple(map(Path, ("dvc.yaml", "dvc.lock", "data.dvc", PARAMS_NAME, "reports/metrics.json")))
"""The files that determine what DVC runs."""
MARKERS = ("<<<<<<< ", "||||||| ", ">>>>>>> ")


def parse(text: str, path: Path, commit: str = "") -> Any:
    """Parse JSON or YAML, by the suffix of its path; raise FileInvalid with the line of a conflict marker or error.

    With `commit`, the text is that of a commit.
    """
    place = f"{commit}:{path}" if commit else str(path)
    restore = f"`git checkout {path}` restores it."
    if commit:
        restore = "Compare with another commit: make gate BASE=<revision>."
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(MARKERS):
            resolve = (
                f"Take one side (`git checkout --theirs {path}` during the merge, `git checkout HEAD^ -- {path}` "
                "after it), resolve params.yaml and the code, then `make repro`."
            )
            raise FileInvalid(f"{place}:{number}: conflict marker {line[:40]!r}. {restore if commit else resolve}")
    try:
        value = _read(text, path)
    except (ValueError, yaml.YAMLError, YAMLError) as err:
        reason = " ".join(str(err).split())[:200]
        raise FileInvalid(f"{place} cannot be read: {reason}. {restore}") from err
    if path.name == PARAMS_NAME:
        for key, day in _dates(value):
            raise FileInvalid(f"{place}: {key} is a date, which DVC does not lock: put it in quotes, '{day}'.")
    return value


def _read(text: str, path: Path) -> Any:
    """Return the content of a file; of parameters as DVC reads them, by YAML 1.2: 010 is ten, and yes is a text."""
    if path.suffix == ".json":
        return json.loads(text)
    if path.name == PARAMS_NAME:
        return YAML(typ="safe", pure=True).load(text)
    return yaml.safe_load(text)  # written by DVC, and five times as fast


def _dates(value: Any, key: str = "") -> Iterator[tuple[str, date]]:
    """Yield the dotted key of each date."""
    if isinstance(value, date):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _dates(item, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for item in value:
            yield from _dates(item, key)


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
