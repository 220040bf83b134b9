"""Progress of long operations: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")


def on_terminal() -> bool:
    """Return whether stderr is an interactive terminal rather than that of a CI job."""
    return sys.stderr.isatty() and not os.environ.get("CI")


def _bars() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shared = sys.stdout.isatty()  # do not write bars to a file or a pipe
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=shared)


@contextmanager
def steps(label: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of `total` steps; it advances a bar, on a terminal only."""
    if not on_terminal():
        yield lambda: None
        return
    with _bars() as bars:
        task = bars.add_task(label, total=total)
        yield lambda: bars.advance(task)


def track(items: Iterable[Item], label: str, total: int | None = None, lines: bool = True) -> Iterator[Item]:
    """Yield the items and show progress: a bar on a terminal, elsewhere a line per item unless `lines` is false.

    `total` is required for items without a length.
    """
    count = total if total is not None or not isinstance(items, Collection) else len(items)
    if on_terminal():
        with _bars() as bars:
            yield from bars.track(items, total=count, description=label)
        return
    for done, item in enumerate(items, 1):
        yield item
        if lines:
            print(f"{label}: {done} of {count}", file=sys.stderr, flush=True)
