"""MLflow's client in a process of its own, started at the first request and ended with the service.

Importing MLflow takes 2 s, in which Python runs nothing else, and a registry that hangs would block a thread. The
process is `app.registry.helper`; it reads one JSON array per line and writes one JSON object for each.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from app.addresses import without_password
from app.errors import BundleInvalid, ModelUnavailable, VersionMissing
from app.registry.registered import Registered

FIND_SECONDS = 60
"""Limit of a look at the alias, with the start of the process on a busy machine."""
EXPORT_SECONDS = 120
"""Limit of a download."""
ERRORS = {kind.__name__: kind for kind in (BundleInvalid, VersionMissing)}
"""The errors that the watcher distinguishes; every other error is ModelUnavailable."""


class RegistryClient:
    """A registry behind the helper process; requests are sequential."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._process: asyncio.subprocess.Process | None = None

    async def find(self, name: str, alias: str) -> Registered:
        """Return the version with an alias; raise VersionMissing if there is none."""
        return await self.request(FIND_SECONDS, "find", self.uri, name, alias)

    async def export(self, version: Registered, folder: Path) -> Registered:
        """Download a version to a folder, and return the registry's record of it."""
        return await self.request(
            EXPORT_SECONDS, "export", self.uri, version.name, version.version, version.alias, str(folder)
        )

    async def request(self, seconds: float, *command: str) -> Registered:
        """Send a command and return its reply; raise its error, or ModelUnavailable if the process dies or hangs.

        A process that died or hangs is ended, and the next request starts another one.
        """
        reply = None
        try:
            async with asyncio.timeout(seconds):
                if self._process is None:
                    self._process = await start_helper()
                assert self._process.stdin and self._process.stdout
                self._process.stdin.write(json.dumps(command).encode() + b"\n")
                reply = json.loads(await self._process.stdout.readline())
        except TimeoutError as err:
            where = without_password(self.uri)
            raise ModelUnavailable(f"the registry at {where} did not reply within {seconds:g} s.") from err
        except (OSError, ValueError) as err:
            raise ModelUnavailable("the process with MLflow's client exited unexpectedly; its log is above.") from err
        finally:
            if reply is None:  # also where this task is cancelled
                self.close()
        if "error" in reply:
            raise ERRORS.get(reply["error"], ModelUnavailable)(reply["reason"])
        return Registered.model_validate(reply)

    def close(self) -> None:
        """End the process."""
        if self._process and self._process.returncode is None:
            self._process.kill()
        self._process = None


async def start_helper() -> asyncio.subprocess.Process:
    """Start the helper with this checkout's code from any working directory."""
    code = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [code, os.environ.get("PYTHONPATH")]))
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.registry.helper"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C ends the service only
    )
