"""Tasks on Ray Data: the engine `ray` runs the functions of the engine `local`, each in a process of a worker.

Ray repeats a task whose process has ended, so a task writes the same files when it is run again.
"""

# pylint: disable=import-outside-toplevel # Ray is an extra

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from app.errors import OnTimeError

Row = dict[str, Any]
Task = Callable[[int], list[Row]]


def results(task: Task, count: int, workers: int) -> Iterator[Row]:
    """Call a function with each number below `count`, on a running cluster; yield its rows, in no certain order.

    Raises the OnTimeError that a task has raised, or one for a task whose process ends again and again.
    """
    import ray.data
    from ray.exceptions import RayError

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the import has set another one
    ray.data.DataContext.get_current().enable_progress_bars = False
    numbers = ray.data.from_items([{"number": i} for i in range(count)], override_num_blocks=count)
    run = partial(_run, task=task, folder=Path.cwd())
    try:
        yield from numbers.flat_map(run, compute=ray.data.TaskPoolStrategy(size=workers)).iter_rows()
    except RayError as err:
        raise _known(err) from err


def _run(row: Row, task: Task, folder: Path) -> list[Row]:
    os.chdir(folder)  # a worker of a cluster starts elsewhere; paths are relative to the folder of the command
    return task(row["number"])


def _known(err: BaseException) -> OnTimeError:
    """Return the error of a task, as it was raised there; another one in one line."""
    causes: list[BaseException] = [err]
    while (cause := getattr(causes[-1], "cause", None) or causes[-1].__cause__) and cause not in causes:
        causes.append(cause)
    known = next((cause for cause in causes if isinstance(cause, OnTimeError)), None)
    reason = str(err).strip().splitlines()[-1].rstrip(".")
    return known or OnTimeError(f"Ray has ended: {reason}. Check the memory of the workers, and repeat the command.")
