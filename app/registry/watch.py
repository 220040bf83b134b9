"""Which model is served: the baked copy first, then whatever the alias names in the registry.

MLflow's client takes 2 s to import and 30 MB, holds the interpreter's lock meanwhile, and may hang on a server that
does. So it lives in a process of its own (`python -m app.registry.download`), which is there while there is something to
download, and for a minute after; a look at the alias of an HTTP registry is one plain request.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from starlette.datastructures import State

from app.errors import BundleInvalid, ModelUnavailable, OnTimeError
from app.model.served import ServedModel
from app.registry import version as registry
from app.registry.version import DIGEST_TAG, Registered
from app.settings import Settings

LOOK_SECONDS = 5
DOWNLOAD_SECONDS = 120
IDLE_SECONDS = 60
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 30, 3600
"""A version that could not be served is downloaded again after 30 s, then after twice as long each time."""

log = logging.getLogger("app.registry.watch")


class Watcher:
    """Puts the model that is to be served on `app.state.served`, in one assignment, after it has been verified."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.settings: Settings = state.settings
        self.downloads = Downloads()
        self._failed: tuple[Registered, Exception] | None = None
        self._failures, self._retry_at = 0, 0.0
        self._said = ""

    def start(self) -> asyncio.Task[None]:
        """Serve the baked copy if there is one, and return the task that watches the alias."""
        if self.settings.baked_model:
            try:
                self._serve(registry.load(self.settings.baked_model, "baked"))
            except BundleInvalid as err:
                self._say(err)
        return asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        pause = self.settings.refresh_seconds
        try:
            while self.settings.registry_uri:
                await self.look()
                if not pause and self.state.served:
                    return
                await asyncio.sleep(pause or LOOK_SECONDS)
        finally:
            self.downloads.close()

    async def look(self) -> None:
        """Look at the alias once, and serve what it names; whatever fails, the model that is served stays."""
        metrics = self.state.metrics.reloads
        try:
            result = await self._follow()
            metrics.last_success.set_to_current_time()
            self._said = ""
        except Exception as err:  # pylint: disable=broad-exception-caught # whatever it is, the next look comes
            result = "failed"
            self._say(err)
        metrics.results.labels(result).inc()

    async def _follow(self) -> str:
        named, served = await self._named(), self.state.served
        if served and (named.version, named.bundle_digest) == (served.version, served.bundle.digest):
            self.downloads.rest()
            return "unchanged"
        if self._failed and self._failed[0] == named and time.monotonic() < self._retry_at:
            raise self._failed[1]
        try:
            with tempfile.TemporaryDirectory() as folder:
                what = named.name, named.version, named.alias
                await self.downloads.ask("export", self.settings.registry_uri, *what, folder)
                served = await asyncio.to_thread(registry.load, Path(folder), "registry")
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
        uri, name, alias = self.settings.registry_uri, self.settings.model_name, self.settings.model_alias
        if uri.startswith(("http://", "https://")):
            return await asyncio.to_thread(named_by_http, uri, name, alias)
        return await self.downloads.ask("find", uri, name, alias)

    def _serve(self, served: ServedModel) -> None:
        self.state.served = served
        self.state.metrics.model.serving(served)
        log.info("serving version %s of %s, from the %s", served.version, served.name, served.source)

    def _say(self, err: Exception) -> None:
        """Log why nothing else is served than before; once, not at every look."""
        self.state.reason = f"No model is loaded ({type(err).__name__}); the log has the reason."
        if str(err) != self._said:
            served = self.state.served
            kept = f"version {served.version} stays" if served else "no model is served"
            log.error("%s: %s", kept, err, exc_info=None if isinstance(err, (OnTimeError, OSError)) else err)
        self._said = str(err)


def named_by_http(uri: str, name: str, alias: str) -> Registered:
    """Return what the alias names, by MLflow's REST API; raise ModelUnavailable, with the reason."""
    query = urllib.parse.urlencode({"name": name, "alias": alias})
    request = urllib.request.Request(f"{uri.rstrip('/')}/api/2.0/mlflow/registered-models/alias?{query}")
    user, password, token = (os.environ.get(f"MLFLOW_TRACKING_{key}") for key in ("USERNAME", "PASSWORD", "TOKEN"))
    if user and password:
        request.add_header("Authorization", f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}")
    elif token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=LOOK_SECONDS) as response:
            found = json.load(response)["model_version"]
        return Registered(
            name=found["name"],
            version=found["version"],
            alias=alias,
            run_id=found.get("run_id"),
            bundle_digest={tag["key"]: tag["value"] for tag in found.get("tags", [])}.get(DIGEST_TAG, ""),
            created=found["creation_timestamp"] / 1000,
        )
    except urllib.error.HTTPError as err:
        raise ModelUnavailable(f"MLflow answers {err.code} when asked for {alias} of {name}.") from err
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ModelUnavailable(f"MLflow does not say what is {alias} of {name}: {err!r}") from err


class Downloads:
    """MLflow's client in a process of its own, started when there is a question, ended when there is none."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._asked = 0.0

    async def ask(self, *question: str) -> Registered:
        """Return the answer of `app.registry.download`; raise what it raised, ModelUnavailable if it ends or does not answer."""
        answer, self._asked = None, time.monotonic()
        try:
            async with asyncio.timeout(DOWNLOAD_SECONDS):
                self._process = process = self._process or await _start()
                assert process.stdin and process.stdout
                process.stdin.write(json.dumps(question).encode() + b"\n")
                answer = json.loads(await process.stdout.readline())
        except TimeoutError as err:
            raise ModelUnavailable(f"the registry does not answer within {DOWNLOAD_SECONDS} s.") from err
        except (OSError, ValueError) as err:
            raise ModelUnavailable("the process that asks the registry has ended; what it wrote is above.") from err
        finally:
            if answer is None:
                self.close()
        if "error" in answer:
            raise {err.__name__: err for err in (BundleInvalid, ModelUnavailable)}[answer["error"]](answer["reason"])
        return Registered.model_validate(answer)

    def rest(self) -> None:
        """End the process when it has had nothing to do for a while."""
        if time.monotonic() - self._asked > IDLE_SECONDS:
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
        start_new_session=True,  # Ctrl-C is for the service
    )
