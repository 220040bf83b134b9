"""Tasks on Ray: the engine `ray` runs the functions of the engine `local`, each in a process of a worker.

Ray repeats a task whose process has ended, so a task writes the same files when it is run again.
"""

# pylint: disable=import-outside-toplevel # Ray is an extra

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from app.errors import OnTimeError

Result = TypeVar("Result")
RETRIES = 1


def results(task: Callable[[int], Result], count: int, workers: int) -> Iterator[Result]:
    """Call a function with each number below `count`, on a running cluster; yield what it returns, in no certain order.

    Raises the OnTimeError that a task has raised, or one for a task whose process has ended twice.
    """
    import ray
    from ray.exceptions import RayError

    remote = ray.remote(max_retries=RETRIES)(_run)
    waiting = list(range(count))
    running: list[Any] = []
    while waiting or running:
        while waiting and len(running) < workers:
            running.append(remote.remote(task, waiting.pop(0), Path.cwd()))
        done, running = ray.wait(running)
        try:
            yield ray.get(done[0])
        except RayError as err:
            cause = getattr(err, "cause", None)
            if isinstance(cause, OnTimeError):
                raise cause from err
            reason = str(err).strip().splitlines()[-1].rstrip(".")
            raise OnTimeError(
                f"Ray has ended: {reason}. Check the memory of the workers, and repeat the command."
            ) from err


def _run(task: Callable[[int], Result], number: int, folder: Path) -> Result:
    os.chdir(folder)  # a worker of a cluster starts elsewhere; paths are relative to the folder of the command
    return task(number)
