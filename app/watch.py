"""Which model is served: the baked copy, or what the alias names in the registry."""

from __future__ import annotations

import tempfile
from pathlib import Path

from app import registry
from app.served import ServedModel
from app.settings import Settings


def first_model(settings: Settings) -> ServedModel:
    """Return the baked copy, or else what the alias names; raise ModelUnavailable or BundleInvalid, with the reason."""
    if settings.baked_model:
        return registry.load(settings.baked_model, "baked")
    return from_registry(settings)


def from_registry(settings: Settings) -> ServedModel:
    """Download what the alias names, and load it."""
    from app import download  # pylint: disable=import-outside-toplevel  # takes 2 s

    uri = settings.registry_uri
    version = download.find(uri, settings.model_name, settings.model_alias)
    with tempfile.TemporaryDirectory() as folder:
        download.export(version, settings.model_alias, uri, Path(folder))
        return registry.load(Path(folder), "registry")
