"""The choice of the served model: first the cached or baked one, then the version with the alias in the registry.

MLflow's client takes 2 s and 30 MB to import, holds the GIL meanwhile, and may block when the server hangs. It runs in
a separate process (`python -m app.registry.download`), which ends after a minute without downloads. The alias in an
HTTP registry or a SQLite file is polled without it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from starlette.datastructures import State

from app.errors import BundleInvalid, ModelUnavailable, OnTimeError, VersionMissing
from app.model.served import ServedModel
from app.registry import alias
from app.registry import version as registry
from app.registry.cache import Cache
from app.registry.version import Registered
from app.settings import Settings

POLL_SECONDS = 5
DOWNLOAD_SECONDS = 120
IDLE_SECONDS = 60
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 30, 3600
"""Delay before a failed version is downloaded again; doubles from the first to the last value."""

log = logging.getLogger("app.registry.watch")


class Watcher:
    """Polls the alias and assigns the model to `app.state.served` once it is verified."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.settings: Settings = state.settings
        self.cache = Cache(self.settings)
        self.downloads = Downloads()
        self._failed: tuple[Registered, Exception] | None = None
        self._failures, self._retry_at = 0, 0.0
        self._reported = ""

    def start(self) -> asyncio.Task[None]:
        """Serve the cached model, or else the baked one, if there is one; return the task that polls the alias."""
        if (known := self.cache.pointer()) and (cached := self.cache.load(known, "cache")):
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
            self.downloads.close()

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
            named, served = await self._named(), self.state.served
        except VersionMissing:
            self._withdraw()
            raise
        if served and (named.version, named.bundle_digest) == (served.version, served.bundle.digest):
            self.downloads.rest()
            if (served.source, served.production) != ("registry", named.production):
                await asyncio.to_thread(self.cache.keep, named)
                self._serve(replace(served, alias=named.alias, source="registry", production=named.production))
            return "unchanged"
        if self._failed and self._failed[0] == named and time.monotonic() < self._retry_at:
            raise self._failed[1]
        try:
            served = await self._obtain(named)
        except (OnTimeError, OSError) as err:
            again = self._failed is not None and self._failed[0] == named
            self._failures = self._failures + 1 if again else 0
            self._retry_at = time.monotonic() + min(FIRST_RETRY_SECONDS * 2**self._failures, LAST_RETRY_SECONDS)
            self._failed = named, err
            raise
        self._failed = None
        self._serve(served)
        return "swapped"

    async def _named(self) -> Registered:
        what = self.settings.registry_uri, self.settings.model_name, self.settings.model_alias
        return await asyncio.to_thread(alias.find, *what) or await self.downloads.request("find", *what)

    async def _obtain(self, named: Registered) -> ServedModel:
        """Return a version from the cache, or download it; raise an error if it must not be served."""
        if cached := await asyncio.to_thread(self.cache.load, named, "registry"):
            await asyncio.to_thread(self.cache.keep, named)
            return cached
        with tempfile.TemporaryDirectory() as folder:
            what = named.name, named.version, named.alias
            known = await self.downloads.request("export", self.settings.registry_uri, *what, folder)
            served = await asyncio.to_thread(registry.load, Path(folder), "registry")
            await asyncio.to_thread(self.cache.keep, known, Path(folder))
        return served

    def _withdraw(self) -> None:
        """Stop serving a cached model, as the registry has replied that no version has the alias."""
        if (served := self.state.served) and served.source == "cache":
            self.state.served = None
            self.state.metrics.model.withdrawn()
            self.cache.forget(served)
            self._serve_baked()

    def _serve_baked(self) -> None:
        if self.settings.baked_model:
            try:
                self._serve(registry.load(self.settings.baked_model, "baked"))
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


class Downloads:
    """MLflow's client in a separate process, started on demand and ended when idle."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._used = 0.0

    async def request(self, *command: str) -> Registered:
        """Execute a command of `app.registry.download`; raise its error, ModelUnavailable if it exits or times out."""
        reply, self._used = None, time.monotonic()
        try:
            async with asyncio.timeout(DOWNLOAD_SECONDS):
                self._process = process = self._process or await _start()
                assert process.stdin and process.stdout
                process.stdin.write(json.dumps(command).encode() + b"\n")
                reply = json.loads(await process.stdout.readline())
        except TimeoutError as err:
            raise ModelUnavailable(f"the registry client did not reply within {DOWNLOAD_SECONDS} s.") from err
        except (OSError, ValueError) as err:
            raise ModelUnavailable("the registry client exited unexpectedly; its log is above.") from err
        finally:
            if reply is None:
                self.close()
        if "error" in reply:
            kinds = {kind.__name__: kind for kind in (BundleInvalid, VersionMissing)}
            raise kinds.get(reply["error"], ModelUnavailable)(reply["reason"])
        return Registered.model_validate(reply)

    def rest(self) -> None:
        """End the process if it has been idle for `IDLE_SECONDS`."""
        if time.monotonic() - self._used > IDLE_SECONDS:
            self.close()

    def close(self) -> None:
        """End the process."""
        if self._process and self._process.returncode is None:
            self._process.kill()
        self._process = None


async def _start() -> asyncio.subprocess.Process:
    code = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")]))
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app.registry.download",
        stdin=pipe,
        stdout=pipe,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C ends the service only
    )
