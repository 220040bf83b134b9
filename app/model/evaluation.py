"""The evaluation of a bundle, a JSON file beside it: what stage `evaluate` measured, with curves and texts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

EVALUATION_FILE = "evaluation.json"
MOST_BYTES = 1_000_000

log = logging.getLogger("app.model.evaluation")


def load(folder: Path, digest: str) -> dict[str, Any] | None:
    """Return the evaluation in a folder; log the reason and return None unless it is of the bundle with this digest."""
    try:
        return _read(folder / EVALUATION_FILE, digest)
    except FileNotFoundError:
        log.info("the model is served without an evaluation: none has been registered with it")
    except (OSError, ValueError, RecursionError) as err:
        log.warning("the model is served without its evaluation: %s: %s", EVALUATION_FILE, err)
    return None


def _read(file: Path, digest: str) -> dict[str, Any]:
    with file.open("rb") as opened:
        content = opened.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    found = json.loads(content)
    if not isinstance(found, dict) or found.get("bundle_digest") != digest:
        raise ValueError(f"not of bundle {digest[:12]}…")
    return found
