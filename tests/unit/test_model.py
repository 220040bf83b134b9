"""The bundle: what is damaged is refused, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import BundleInvalid
from app.model import bundle as model
from app.model.bundle import Bundle

Damage = Callable[[str, bytes, bytes], Path]


def load(folder: Path) -> Bundle:
    """Load the bundle in a folder."""
    return model.load(folder / model.MODEL_FILE, folder / model.MANIFEST_FILE)


def test_a_sound_bundle_is_loaded_with_its_threshold(bundle: Bundle) -> None:
    assert bundle.threshold == 0.5 and len(bundle.digest) == 64


def test_refuses_a_model_file_with_a_changed_byte(damaged: Damage) -> None:
    with pytest.raises(BundleInvalid, match=r"not match its manifest.*dvc checkout"):
        load(damaged(model.MODEL_FILE, b"num_leaves=7", b"num_leaves=8"))


def test_refuses_a_model_whose_golden_answers_changed(damaged: Damage) -> None:
    with pytest.raises(BundleInvalid, match=r"golden request 0 differs by"):
        load(damaged(model.MANIFEST_FILE, b'"probability": 0.', b'"probability": 0.0'))


def test_refuses_a_model_that_asks_for_a_feature_known_only_after_departure(damaged: Damage) -> None:
    with pytest.raises(BundleInvalid, match=r"other features.*dep_delay"):
        load(damaged(model.MANIFEST_FILE, b'"departure_minute"', b'"dep_delay"'))


def test_refuses_a_truncated_manifest(damaged: Damage) -> None:
    folder = damaged(model.MANIFEST_FILE, b"{", b"[")
    with pytest.raises(BundleInvalid, match="is not a model bundle.*dvc repro train"):
        load(folder)


@pytest.mark.parametrize("key", ["golden", "threshold", "lookups", "model_sha256"])
def test_refuses_a_manifest_that_lacks_a_part(damaged: Damage, key: str) -> None:
    with pytest.raises(BundleInvalid, match=key):
        load(damaged(model.MANIFEST_FILE, f'"{key}":'.encode(), f'"no_{key}":'.encode()))


def test_refuses_a_folder_without_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleInvalid, match=str(tmp_path)):
        load(tmp_path)
