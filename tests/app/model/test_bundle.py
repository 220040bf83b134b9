"""The bundle: what is damaged is refused, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import BundleInvalid
from app.model import bundles
from app.model.bundles import Bundle

Damage = Callable[[str, bytes, bytes], Path]


def test_a_sound_bundle_is_loaded_with_its_threshold(bundle: Bundle) -> None:
    assert bundle.threshold == 0.5 and len(bundle.digest) == 64


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        (bundles.MODEL_FILE, b"num_leaves=7", b"num_leaves=8", "not match its manifest.*dvc checkout"),
        (bundles.MANIFEST_FILE, b'"probability": 0.', b'"probability": 0.0', "golden request 0 differs by"),
        (bundles.MANIFEST_FILE, b'"departure_minute"', b'"dep_delay"', "other features.*dep_delay"),
        (bundles.MANIFEST_FILE, b"{", b"[", "is not a model bundle.*dvc repro train"),
        *(
            (bundles.MANIFEST_FILE, f'"{key}":'.encode(), f'"no_{key}":'.encode(), key)
            for key in ("golden", "threshold", "lookups", "model_sha256")
        ),
    ],
)
def test_a_damaged_bundle_is_refused(damaged: Damage, name: str, old: bytes, new: bytes, reason: str) -> None:
    folder = damaged(name, old, new)
    with pytest.raises(BundleInvalid, match=reason):
        bundles.load(folder / bundles.MODEL_FILE, folder / bundles.MANIFEST_FILE)


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleInvalid, match=str(tmp_path)):
        bundles.load(tmp_path / bundles.MODEL_FILE, tmp_path / bundles.MANIFEST_FILE)
