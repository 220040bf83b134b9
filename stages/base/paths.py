"""Paths of reports, and deterministic JSON files. Keep it free of slow imports."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

METRICS_FILE = Path("reports/metrics.json")
VALIDATION_FILE = Path("reports/validation.json")
RECEIPT_FILE = Path("build/receipt.json")
EVALUATION_FILE = Path("reports/evaluation.json")
PREDICTIONS_FILE = Path("build/predictions.parquet")
FEATURES_DIR = Path("build/features")
BUNDLE_DIR = Path("build/bundle")
ROLLING_FILE = Path("build/rolling.parquet")
DECIMALS = 6


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys; raise ValueError for NaN and infinities."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def replace_text(path: Path, text: str) -> None:
    """Replace a text file in one step, so that a process that is killed leaves the old one or the new one."""
    written = path.with_name(f".{path.name}.new")
    with written.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    written.replace(path)


def finite(value: Any) -> Any:
    """Return nested values with None for every NaN and infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rounded(value: Any) -> Any:
    """Return nested results with rounded floats, whose last bits depend on the processor."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, DECIMALS) if isinstance(value, float) else value
