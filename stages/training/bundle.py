"""Write the bundle: model, manifest and reference sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import pandas as pd

from app.interface import FEATURE_NAMES, Lookups, Request, arrays_of_requests, compute
from app.model import bundles
from stages.base.paths import FEATURES_DIR, sha256, write_json


def write_reference(rolling: pd.DataFrame, path: Path) -> None:
    """Write the reference sample with its out-of-fold probabilities (NaN before the first fold)."""
    reference = pd.read_parquet(FEATURES_DIR / "reference.parquet")
    probability = rolling.set_index("row")["probability"].reindex(reference.index)
    path.parent.mkdir(parents=True, exist_ok=True)
    reference.assign(probability=probability).to_parquet(path, index=False)


def write_bundle(
    booster: lightgbm.Booster, facts: dict[str, Any], requests: list[dict[str, Any]], directory: Path
) -> None:
    """Write model and manifest; the golden probabilities are computed from the written model."""
    directory.mkdir(parents=True, exist_ok=True)
    booster.save_model(directory / bundles.MODEL_FILE)
    written = lightgbm.Booster(model_file=directory / bundles.MODEL_FILE)
    rows = arrays_of_requests([Request.model_validate(request) for request in requests])
    probabilities = bundles.predict(written, compute(rows, Lookups.from_json(facts["lookups"])))
    golden = [{"request": r, "probability": round(float(p), 12)} for r, p in zip(requests, probabilities, strict=True)]
    facts |= {"model_sha256": sha256(directory / bundles.MODEL_FILE), "features": list(FEATURE_NAMES), "golden": golden}
    write_json(directory / bundles.MANIFEST_FILE, facts)
