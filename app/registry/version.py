"""A registered version as a folder, and as the model that is served; nothing here needs MLflow's client."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from app.errors import BundleInvalid
from app.model import bundle as model
from app.model.served import ServedModel

VERSION_FILE = "version.json"
DIGEST_TAG = "bundle.digest"
"""The tag of a version that has the SHA-256 of its bundle's manifest."""
Source = Literal["registry", "baked"]


class Registered(BaseModel):
    """What the registry says of a version; with the bundle it makes the folder that the service loads."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    alias: str
    """The alias that named it when it was looked up; empty if none did."""
    run_id: str | None
    bundle_digest: str
    """SHA-256 of the bundle's manifest."""
    created: float | None = None
    """When it was registered, seconds since 1970."""


def load(folder: Path, source: Source) -> ServedModel:
    """Load a folder that `app.registry.download.export` wrote; raise BundleInvalid unless it is what was registered."""
    try:
        known = Registered.model_validate_json((folder / VERSION_FILE).read_bytes())
    except (OSError, ValidationError) as err:
        reason = str(err).splitlines()[0]
        raise BundleInvalid(
            f"{folder} is not a copy of a registered version: {reason}. " f"`on-time model export {folder}` makes one."
        ) from err
    bundle = model.load(folder / model.MODEL_FILE, folder / model.MANIFEST_FILE)
    if bundle.digest != known.bundle_digest:
        raise BundleInvalid(
            f"version {known.version} of {known.name} is not what was registered: its manifest has SHA-256 "
            f"{bundle.digest[:12]}…, the registry says {known.bundle_digest[:12]}…."
        )
    return ServedModel(known.name, known.version, known.alias, known.run_id, bundle, source, known.created)
