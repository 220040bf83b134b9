"""Progress of long operations: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Item = TypeVar("Item")


def on_terminal() -> bool:
    """Return whether stderr is an interactive terminal rather than that of a CI job."""
    return sys.stderr.isatty() and not os.environ.get("CI")


class Speed(ProgressColumn):
    """The steps per second of the last half minute."""

    def render(self, task: Task) -> Text:
        """Return the column."""
        return Text(f"{task.speed or 0:,.0f} a second")


def _bars(*more: ProgressColumn) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *more, TimeRemainingColumn())
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


@contextmanager
def rows(label: str, count: Callable[[], int | None]) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with a number of rows after these are done; a bar shows it, on a terminal only.

    `count` returns the number of all rows, None if it is not known; it is called on a terminal only.
    """
    if not on_terminal():
        yield lambda _: None
        return
    with _bars(Speed()) as bars:
        task = bars.add_task(label, total=count())
        yield lambda done: bars.advance(task, done)


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
