"""A registered version as a folder, loaded without MLflow's client."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from app.errors import BundleInvalid
from app.model import bundle as model
from app.model.served import ServedModel, Source

VERSION_FILE = "version.json"
DIGEST_TAG = "bundle.digest"
"""Tag of a version: the SHA-256 of its bundle's manifest."""


class Registered(BaseModel):
    """The registry's record of a version, stored next to the bundle in the folder that the service loads."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    alias: str
    """The alias by which it was found; empty if it was found by version."""
    run_id: str | None
    bundle_digest: str
    """SHA-256 of the bundle's manifest."""
    created: float | None = None
    """Time of registration, seconds since 1970."""


def load(folder: Path, source: Source) -> ServedModel:
    """Load a folder written by `app.registry.download.export`; raise BundleInvalid unless it matches the registry."""
    try:
        known = Registered.model_validate_json((folder / VERSION_FILE).read_bytes())
    except (OSError, ValidationError) as err:
        reason = str(err).splitlines()[0]
        raise BundleInvalid(
            f"{folder} is not a copy of a registered version: {reason}. `on-time model export {folder}` creates one."
        ) from err
    return verified(folder, known, source)


def verified(folder: Path, known: Registered, source: Source) -> ServedModel:
    """Load the bundle in a folder as a registered version; raise BundleInvalid unless it has the registered digest."""
    bundle = model.load(folder / model.MODEL_FILE, folder / model.MANIFEST_FILE)
    if not known.bundle_digest:
        raise BundleInvalid(
            f"version {known.version} of {known.name} has no tag {DIGEST_TAG}: it was not registered by `make repro`."
        )
    if bundle.digest != known.bundle_digest:
        raise BundleInvalid(
            f"version {known.version} of {known.name} does not match the registry: its manifest has SHA-256 "
            f"{bundle.digest[:12]}…, the registered one {known.bundle_digest[:12]}…."
        )
    return ServedModel(known.name, known.version, known.alias, known.run_id, bundle, source, known.created)
