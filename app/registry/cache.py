"""The registry's version as it was verified last, kept on disk, so that the next start serves it at once.

The folder holds one bundle, named after its digest, and a pointer: which version of which registry it is.
"""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from app.addresses import identity
from app.errors import BundleInvalid
from app.model import bundles
from app.model.evaluation import EVALUATION_FILE
from app.model.served import ServedModel, Source
from app.registry.registered import Registered, verified
from app.settings import Settings

POINTER_FILE = "pointer.json"
FILES = (bundles.MODEL_FILE, bundles.MANIFEST_FILE, EVALUATION_FILE)

log = logging.getLogger("app.registry.cache")


class Pointer(Registered):
    """The cached version, and the registry that it belongs to."""

    registry: str


class Cache:
    """The cached version of one alias in one registry; without a folder or a registry, it is always empty."""

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.model_cache if settings.registry_uri else None
        self._key = identity(settings.registry_uri), settings.model_name, settings.model_alias

    def pointer(self) -> Registered | None:
        """Return the cached version; None if there is none of this registry, name and alias."""
        if not self._folder:
            return None
        try:
            pointer = Pointer.model_validate_json((self._folder / POINTER_FILE).read_bytes())
        except (OSError, ValidationError):
            return None
        return pointer if (pointer.registry, pointer.name, pointer.alias) == self._key else None

    def load(self, known: Registered, source: Source) -> ServedModel | None:
        """Return a version from the cache; None if it is not there, or damaged: then it is removed."""
        kept = self._bundle(known.bundle_digest)
        if not kept or not kept.is_dir():
            return None
        try:
            return verified(kept, known, source)
        except BundleInvalid as err:
            log.warning("the cached model is damaged, it is downloaded again: %s", err)
            shutil.rmtree(kept, ignore_errors=True)
            return None

    def keep(self, known: Registered, downloaded: Path | None = None) -> None:
        """Make a version the cached one: its downloaded folder, or without one the bundle that is cached already.

        A cache that cannot be written is logged; then the next start downloads the model.
        """
        kept = self._bundle(known.bundle_digest)
        if not self._folder or not kept or (known.name, known.alias) != self._key[1:]:
            return
        if not downloaded and not kept.is_dir():
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="new-", dir=self._folder) as scratch:
                if downloaded:
                    _copy(downloaded, Path(scratch) / "bundle", kept)
                pointer = Path(scratch) / POINTER_FILE
                pointer.write_text(Pointer(**known.model_dump(), registry=self._key[0]).model_dump_json(), "utf-8")
                pointer.replace(self._folder / POINTER_FILE)
            for other in self._folder.iterdir():
                if other != kept and self._bundle(other.name):
                    shutil.rmtree(other, ignore_errors=True)
        except OSError as err:
            advice = "Set ONTIME_MODEL_CACHE to a folder that this user can write, or to none."
            log.warning("the model is not cached, the next start downloads it again: %s. %s", err, advice)

    def forget(self, served: ServedModel) -> None:
        """Remove the pointer if it names this version, which is not the registry's any more."""
        known = self.pointer()
        if self._folder and known and (known.version, known.bundle_digest) == (served.version, served.bundle.digest):
            with suppress(OSError):
                (self._folder / POINTER_FILE).unlink()

    def _bundle(self, digest: str) -> Path | None:
        """Return the folder of a bundle; None without a cache, or if the text is not a digest: it could be a path."""
        return self._folder / digest if self._folder and re.fullmatch("[0-9a-f]{64}", digest) else None


def _copy(downloaded: Path, scratch: Path, kept: Path) -> None:
    """Copy a bundle, complete or not at all."""
    scratch.mkdir()
    for name in FILES:
        if (downloaded / name).is_file():
            shutil.copyfile(downloaded / name, scratch / name)
    try:
        scratch.rename(kept)
    except OSError:
        if not kept.is_dir():  # no other worker has done it
            raise
