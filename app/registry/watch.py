"""The choice of the served model: first the cached or baked one, then the version with the alias in the registry.

A restart must not need the registry, and a registry that fails must not end a service that runs: each error keeps the
current model. A new model is loaded and verified beside the old one; one assignment then replaces it, so every request
is answered by one version. Only a cached model is withdrawn, when the registry replies that no version has the alias.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.datastructures import State

from app.errors import BundleInvalid, OnTimeError, VersionMissing
from app.model.served import ServedModel
from app.registry import registered
from app.registry.cache import Cache
from app.registry.client import RegistryClient
from app.registry.registered import Registered
from app.settings import Settings

POLL_SECONDS = 5
"""Between two polls where ONTIME_REFRESH_SECONDS is 0 and no model is served yet."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 30, 3600
"""Delay before a failed version is downloaded again; doubles from the first to the last value."""

log = logging.getLogger("app.registry.watch")


@dataclass(frozen=True)
class Failure:
    """A version that could not be loaded, and when it is tried again."""

    version: Registered
    error: Exception
    pause: float
    until: float
    """On the monotonic clock."""


class Watcher:
    """Polls the alias and assigns the model to `app.state.served` once it is verified."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.settings: Settings = state.settings
        self.cache = Cache(self.settings)
        self.client = RegistryClient(self.settings.registry_uri)
        self._failure: Failure | None = None
        self._reported = ""

    def start(self) -> asyncio.Task[None]:
        """Serve the cached model, or else the baked one, if there is one; return the task that polls the alias."""
        known = self.cache.pointer()
        cached = self.cache.load(known, "cache") if known else None
        if cached:
            self._serve(cached)
        else:
            self._serve_baked()
        return asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        pause = self.settings.refresh_seconds
        try:
            while self.settings.registry_uri:
                await self.poll()
                if not pause and self.state.served and self.state.served.source != "cache":
                    return
                await asyncio.sleep(pause or POLL_SECONDS)
        finally:
            self.client.close()

    async def poll(self) -> None:
        """Poll the alias once and serve its version; after any error, keep the current model."""
        metrics = self.state.metrics.reloads
        try:
            result = await self._follow()
            metrics.last_success.set_to_current_time()
            self._reported = ""
        except Exception as err:  # pylint: disable=broad-exception-caught # retried at the next poll
            result = "failed"
            self._report(err)
        metrics.results.labels(result).inc()

    async def _follow(self) -> str:
        try:
            named = await self.client.find(self.settings.model_name, self.settings.model_alias)
        except VersionMissing:
            self._withdraw()
            raise
        served = self.state.served
        if served and (named.version, named.bundle_digest) == (served.version, served.bundle.digest):
            await self._confirm(served, named)
            return "unchanged"
        failure = self._failure if self._failure and self._failure.version == named else None
        if failure and time.monotonic() < failure.until:
            raise failure.error
        try:
            served = await self._obtain(named)
        except (OnTimeError, OSError) as err:
            pause = min(2 * failure.pause, LAST_RETRY_SECONDS) if failure else FIRST_RETRY_SECONDS
            self._failure = Failure(named, err, pause, time.monotonic() + pause)
            raise
        self._failure = None
        self._serve(served)
        return "swapped"

    async def _confirm(self, served: ServedModel, named: Registered) -> None:
        """Take over what the registry says of the served version: where it is from, and how it became Production."""
        if (served.source, served.production) != ("registry", named.production):
            await asyncio.to_thread(self.cache.keep, named)
            self._serve(replace(served, alias=named.alias, source="registry", production=named.production))

    async def _obtain(self, named: Registered) -> ServedModel:
        """Return a version from the cache, or download it; raise an error if it must not be served."""
        cached = await asyncio.to_thread(self.cache.load, named, "registry")
        if cached:
            await asyncio.to_thread(self.cache.keep, named)
            return cached
        with tempfile.TemporaryDirectory() as folder:
            known = await self.client.export(named, Path(folder))
            served = await asyncio.to_thread(registered.load, Path(folder), "registry")
            await asyncio.to_thread(self.cache.keep, known, Path(folder))
        return served

    def _withdraw(self) -> None:
        """Stop serving a cached model, as the registry has replied that no version has the alias."""
        served = self.state.served
        if served and served.source == "cache":
            self.state.served = None
            self.state.metrics.model.withdrawn()
            self.cache.forget(served)
            self._serve_baked()

    def _serve_baked(self) -> None:
        if self.settings.baked_model:
            try:
                self._serve(registered.load(self.settings.baked_model, "baked"))
            except BundleInvalid as err:
                self._report(err)

    def _serve(self, served: ServedModel) -> None:
        self.state.served = served
        self.state.metrics.model.serving(served)
        log.info("serving version %s of %s (%s)", served.version, served.name, served.source)

    def _report(self, err: Exception) -> None:
        """Log an error, once rather than at every poll; the current model stays."""
        self.state.reason = f"No model is loaded ({type(err).__name__}); the log has the cause."
        if str(err) != self._reported:
            served = self.state.served
            kept = f"version {served.version} stays" if served else "no model is served"
            log.error("%s: %s", kept, err, exc_info=None if isinstance(err, (OnTimeError, OSError)) else err)
        self._reported = str(err)
