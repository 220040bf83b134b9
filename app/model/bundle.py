"""The model bundle: one directory with LightGBM's text model and a JSON manifest; loaded and verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import BundleInvalid
from app.features import Floats
from app.interface import CATEGORIES, FEATURE_NAMES, Lookups, Request, columns, compute
from app.model.booster import Booster

MODEL_FILE = "model.lgb"
MANIFEST_FILE = "manifest.json"
REFERENCE_FILE = "reference.parquet"
GOLDEN_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Bundle:
    """A verified model with all that a prediction needs."""

    booster: Booster
    lookups: Lookups
    threshold: float
    digest: str
    manifest: dict[str, Any]

    def probabilities(self, requests: Sequence[Request]) -> Floats:
        """Return the probability of each request, shape (n,)."""
        return predict(self.booster, compute(columns(requests), self.lookups))

    def values(self, row: Sequence[float]) -> dict[str, float | str | None]:
        """Return a row of features by name: categories as text, None where a value is missing."""
        # pylint: disable-next=comparison-with-itself # only a missing value differs from itself
        decoded: dict[str, Any] = {name: value if value == value else None for name, value in zip(FEATURE_NAMES, row)}
        for name in CATEGORIES:
            if decoded[name] is not None:
                decoded[name] = self.lookups.vocabularies[name][int(decoded[name])]
        return decoded


def predict(booster: Any, features: Floats) -> Floats:
    """Return the probability of each row of features, by our booster or LightGBM's own."""
    threads = 1 if len(features) < 100 else 0  # more threads only cost time on few rows
    return np.asarray(booster.predict(features, num_threads=threads), dtype=np.float64)


def load(model: Path, manifest: Path) -> Bundle:
    """Load a bundle; raise BundleInvalid unless its hash, its features and its golden answers are right."""
    try:
        text, content = model.read_bytes(), manifest.read_bytes()
        facts = json.loads(content)
        expected, features, threshold = facts["model_sha256"], facts["features"], float(facts["threshold"])
        lookups = Lookups.from_json(facts["lookups"])
        golden = [(Request.model_validate(item["request"]), float(item["probability"])) for item in facts["golden"]]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise BundleInvalid(f"{model.parent} is not a model bundle: {err!r}. `dvc repro train` makes one.") from err
    found = hashlib.sha256(text).hexdigest()
    if found != expected:
        raise BundleInvalid(
            f"{model} is not the model of its manifest: SHA-256 {found[:12]}…, expected {str(expected)[:12]}…. "
            "`dvc checkout build/bundle` restores it."
        )
    if features != list(FEATURE_NAMES):
        odd = sorted(set(features) ^ set(FEATURE_NAMES)) or ["another order"]
        raise BundleInvalid(
            f"{manifest} asks for other features than app/problem/features.py computes: {', '.join(odd)}."
        )
    bundle = Bundle(Booster(text), lookups, threshold, hashlib.sha256(content).hexdigest(), facts)
    _replay(bundle, golden, manifest)
    return bundle


def _replay(bundle: Bundle, golden: list[tuple[Request, float]], manifest: Path) -> None:
    """Raise BundleInvalid unless the golden requests get the probabilities that they had when the model was made."""
    if not golden:
        raise BundleInvalid(f"{manifest} has no golden requests to verify the model with.")
    answers = bundle.probabilities([request for request, _ in golden])
    apart = np.abs(answers - np.array([probability for _, probability in golden]))
    if not np.all(apart <= GOLDEN_TOLERANCE):
        raise BundleInvalid(
            f"{manifest}: golden request {int(np.argmax(apart))} differs by {apart.max():.3g}: the model is not served."
        )
