"""The model bundle, a directory with LightGBM's text model and a JSON manifest: loading and verification."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.errors import BundleInvalid
from app.interface import CATEGORIES, FEATURE_NAMES, Lookups, Request, arrays_of_requests, compute
from app.model.booster import Booster
from app.problem_kit.features import Floats

MODEL_FILE = "model.lgb"
MANIFEST_FILE = "manifest.json"
REFERENCE_FILE = "reference.parquet"
GOLDEN_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Bundle:
    """A verified model with everything that a prediction requires."""

    booster: Booster
    lookups: Lookups
    threshold: float
    digest: str
    manifest: dict[str, Any]

    def probabilities(self, requests: Sequence[Request]) -> Floats:
        """Return the probability of each request, shape (n,)."""
        return predict(self.booster, compute(arrays_of_requests(requests), self.lookups))

    def values(self, row: Sequence[float]) -> dict[str, float | str | None]:
        """Return a row of features by name: categories as text, None where a value is missing."""
        # pylint: disable-next=comparison-with-itself # true for NaN only
        decoded: dict[str, Any] = {name: value if value == value else None for name, value in zip(FEATURE_NAMES, row)}
        for name in CATEGORIES:
            if decoded[name] is not None:
                decoded[name] = self.lookups.vocabularies[name][int(decoded[name])]
        return decoded


def predict(booster: Any, features: Floats) -> Floats:
    """Return the probability of each row of features, by this package's booster or LightGBM's."""
    threads = 1 if len(features) < 100 else 0  # on few rows, more threads are slower
    return np.asarray(booster.predict(features, num_threads=threads), dtype=np.float64)


def load(model: Path, manifest: Path) -> Bundle:
    """Load a bundle; raise BundleInvalid unless hash, features and golden requests are correct."""
    try:
        text, content = model.read_bytes(), manifest.read_bytes()
        facts = json.loads(content)
        expected, features, threshold = facts["model_sha256"], facts["features"], float(facts["threshold"])
        lookups = Lookups.from_json(facts["lookups"])
        golden = [(Request.model_validate(item["request"]), float(item["probability"])) for item in facts["golden"]]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise BundleInvalid(f"{model.parent} is not a model bundle: {err!r}. `dvc repro train` builds one.") from err
    found = hashlib.sha256(text).hexdigest()
    if found != expected:
        raise BundleInvalid(
            f"{model} does not match its manifest: SHA-256 {found[:12]}…, expected {str(expected)[:12]}…. "
            "`dvc checkout build/bundle` restores it."
        )
    if features != list(FEATURE_NAMES):
        odd = sorted(set(features) ^ set(FEATURE_NAMES)) or ["a different order"]
        raise BundleInvalid(f"{manifest} has other features than app/problem computes: {', '.join(odd)}.")
    bundle = Bundle(Booster(text), lookups, threshold, hashlib.sha256(content).hexdigest(), facts)
    _replay(bundle, golden, manifest)
    return bundle


def _replay(bundle: Bundle, golden: list[tuple[Request, float]], manifest: Path) -> None:
    """Raise BundleInvalid unless the golden requests reproduce their recorded probabilities."""
    if not golden:
        raise BundleInvalid(f"{manifest} has no golden requests, which verify the model.")
    replayed = bundle.probabilities([request for request, _ in golden])
    error = np.abs(replayed - np.array([probability for _, probability in golden]))
    if not np.all(error <= GOLDEN_TOLERANCE):
        raise BundleInvalid(
            f"{manifest}: golden request {int(np.argmax(error))} differs by {error.max():.3g}: the model is not served."
        )
