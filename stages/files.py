"""The reports' files, and files that are the same for the same content; nothing that takes a while to import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

METRICS_FILE = Path("reports/metrics.json")
EVALUATION_FILE = Path("reports/evaluation.json")


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys; a NaN or an infinity is an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
