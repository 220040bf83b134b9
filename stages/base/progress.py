"""Progress of long operations: a bar on a terminal, plain lines or nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

Item = TypeVar("Item")


@contextmanager
def progress_bar(label: str, count: Callable[[], int | None]) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with a number of finished steps; only a terminal shows them, and needs their `count`."""
    with Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # do not write bars to a file or a pipe
        disable=not sys.stderr.isatty(),
    ) as bars:
        yield partial(bars.advance, bars.add_task(label, total=None if bars.disable else count()))


def track(items: Iterable[Item], label: str, total: int | None = None, lines: bool = True) -> Iterator[Item]:
    """Yield the items and show a bar; off a terminal, print a line per item instead unless `lines` is false.

    `total` is required for items without a length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress_bar(label, lambda: total) as advance:
        for done, item in enumerate(items, 1):
            yield item
            advance(1)
            if lines and not sys.stderr.isatty():
                print(f"{label}: {done} of {total}", file=sys.stderr, flush=True)
