"""A registered version as a folder, loaded without MLflow's client."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from app.errors import BundleInvalid
from app.model import bundles, evaluation
from app.model.served import Production, ServedModel, Source

VERSION_FILE = "version.json"
DIGEST_TAG = "bundle.digest"
"""Tag of a version: the SHA-256 of its bundle's manifest."""
PRODUCTION = "production"
"""The alias of the production version."""
PRODUCTION_TAG = "production.record"
"""Tag of a version: how it became Production the last time, as JSON; one tag, so that it is never half written."""


class Registered(BaseModel):
    """The registry's record of a version, stored next to the bundle in the folder that the service loads."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    alias: str
    """The alias that was resolved; empty for a version by number."""
    run_id: str | None
    bundle_digest: str
    """SHA-256 of the bundle's manifest."""
    created: float | None = None
    """Time of registration, seconds since 1970."""
    production: Production | None = None
    """None if it was not found by the alias `production`, or has become Production without a record."""

    @classmethod
    def of(
        cls, name: str, version: str, alias: str, run_id: str | None, created: float, tags: Mapping[str, str]
    ) -> Registered:
        """Return the record of a version from MLflow's fields; `created` is in milliseconds."""
        return cls(
            name=name,
            version=str(version),
            alias=alias,
            run_id=run_id,
            bundle_digest=tags.get(DIGEST_TAG, ""),
            created=created / 1000,
            production=_production(tags) if alias == PRODUCTION else None,
        )


def _production(tags: Mapping[str, str]) -> Production | None:
    try:
        return Production.model_validate_json(tags[PRODUCTION_TAG])
    except (KeyError, ValidationError):
        return None


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
    bundle = bundles.load(folder / bundles.MODEL_FILE, folder / bundles.MANIFEST_FILE)
    if not known.bundle_digest:
        raise BundleInvalid(
            f"version {known.version} of {known.name} has no tag {DIGEST_TAG}: it was not registered by `make repro`."
        )
    if bundle.digest != known.bundle_digest:
        raise BundleInvalid(
            f"version {known.version} of {known.name} does not match the registry: its manifest has SHA-256 "
            f"{bundle.digest[:12]}…, the registered one {known.bundle_digest[:12]}…."
        )
    measured = evaluation.load(folder, bundle.digest)
    registered = known.name, known.version, known.alias, known.run_id
    return ServedModel(*registered, bundle, source, known.created, known.production, measured)
