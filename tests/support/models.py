"""Small models, made in a second."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import lightgbm
import numpy as np

from app.interface import EXAMPLE, FEATURE_NAMES
from app.model import bundles
from app.problem.lookups import Lookups
from app.registry import registered
from stages.evaluation import versions
from stages.training.bundle import write_bundle

ROWS = {"train": {"first": "2013-01-01", "last": "2013-10-31", "rows": 4000, "sha256": "0" * 64}}


def make_bundle(tables: Lookups, folder: Path, rounds: int) -> Path:
    """Write a bundle whose model knows that rain and the evening are bad."""
    rng = np.random.default_rng(0)
    features = rng.random((4000, len(FEATURE_NAMES)))
    features[:, :3] = rng.integers(0, 3, (4000, 3))
    features[:, FEATURE_NAMES.index("departure_minute")] *= 1440
    risk = (
        features[:, FEATURE_NAMES.index("precipitation_in")]
        + features[:, FEATURE_NAMES.index("departure_minute")] / 1440
    )
    target = (risk + rng.normal(0, 0.3, 4000) > 1).astype(np.int8)
    data = lightgbm.Dataset(features, target, feature_name=list(FEATURE_NAMES), categorical_feature=[0, 1, 2])
    booster = lightgbm.train({"objective": "binary", "verbosity": -1, "num_leaves": 7, "seed": 1}, data, rounds)
    facts = {"threshold": 0.5, "lookups": tables.to_json(), "training_data_sha256": "0" * 64, "rows": ROWS}
    write_bundle(booster, facts, [EXAMPLE, EXAMPLE | {"weather": None}], folder)
    return folder


def bake(bundle_dir: Path, version: str, folder: Path) -> Path:
    """Write a bundle as the folder of a registered version."""
    shutil.copytree(bundle_dir, folder)
    digest = hashlib.sha256((folder / bundles.MANIFEST_FILE).read_bytes()).hexdigest()
    facts = {"name": "flight-delay", "version": version, "alias": "production", "run_id": "0" * 32}
    known = registered.Registered(**facts, bundle_digest=digest, created=1.0)
    (folder / registered.VERSION_FILE).write_text(known.model_dump_json())
    return folder


def measured(folder: Path) -> Path:
    """Add the committed evaluation to the folder of a registered version, as if it were that of this bundle."""
    digest = hashlib.sha256((folder / bundles.MANIFEST_FILE).read_bytes()).hexdigest()
    evaluation = versions.collect_evaluation() | {"bundle_digest": digest}
    (folder / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    return folder
