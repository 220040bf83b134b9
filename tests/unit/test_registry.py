"""A registered version in a folder: what is loaded, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import BundleInvalid
from app.registry import version as registry


def test_a_copy_is_loaded_with_what_the_registry_said(baked: Path) -> None:
    served = registry.load(baked, "baked")
    assert (served.name, served.version, served.alias, served.source) == ("flight-delay", "7", "production", "baked")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        (
            "version.json",
            lambda text: text.replace('"bundle_digest":"', '"bundle_digest":"0'),
            "not match the registry",
        ),
        ("version.json", lambda text: text[: len(text) // 2], "on-time model export"),
        ("version.json", lambda text: text.replace('"name"', '"nom"'), "on-time model export"),
        ("manifest.json", lambda text: text.replace('"threshold": 0.5', '"threshold": 0.4'), "not match the registry"),
        ("model.lgb", lambda text: text[: len(text) // 2], "not match its manifest"),
    ],
)
def test_a_copy_that_was_changed_is_refused(baked: Path, name: str, change: Callable[[str], str], reason: str) -> None:
    text = (baked / name).read_text()
    assert change(text) != text
    (baked / name).write_text(change(text))
    with pytest.raises(BundleInvalid, match=reason):
        registry.load(baked, "baked")


@pytest.mark.parametrize("name", ["version.json", "manifest.json", "model.lgb"])
def test_a_copy_that_lacks_a_file_is_refused(baked: Path, name: str) -> None:
    (baked / name).unlink()
    with pytest.raises(BundleInvalid, match="is not a"):
        registry.load(baked, "baked")
