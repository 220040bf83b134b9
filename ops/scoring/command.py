"""The command: find the model, score the files, show the progress."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from app import cpus
from app.interface import NAME, ROWS_NOUN
from app.registry import download, registered
from ops.registry import commands
from ops.scoring import files, on_ray
from ops.scoring.output import Job, Part
from ops.scoring.score import Report, Total, processes, score_files
from stages.base import progress
from stages.tracking import mlflow_runs


class Shown(Report):
    """A line on stderr for each part, below which a bar shows the rows."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance

    def rows(self, count: int) -> None:
        """Advance the bar."""
        self._advance(count)

    def part(self, part: Part, rate: float) -> None:
        """Print the part's file, rows, rate and rejected rows."""
        print(f"{part.file}: {part.rows:,} rows, {rate:,.0f} a second, {part.rejected:,} rejected", file=sys.stderr)


def score_with_version(
    source: str, target: str, number: str | None, alias: str, tolerated: float, workers: int, engine: str = "local"
) -> str:
    """Score files with a version, by default the one with the alias, and return what was done."""
    uri = mlflow_runs.tracking_uri()
    for path in files.hidden(source):
        print(f"{path}: left out, as its name or its folder's begins with . or _", file=sys.stderr)
    with ExitStack() as stack:
        run: Callable[..., Total] = on_ray.score_on_ray
        if engine == "local":  # the processes start while the version is looked for
            workers = workers or cpus.available()
            run = partial(score_files, pool=stack.enter_context(processes(workers)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="on-time-score-"))) / "model"
        client = mlflow_runs.connect()  # the store may have been moved
        if number:
            found = commands.find_version(client, NAME, number, "", "`make history` shows them")
        else:
            found = download.find(uri, NAME, alias)
        known = download.export(found, "" if number else alias, uri, folder)
        threshold = registered.load(folder, "baked").bundle.threshold
        advance = stack.enter_context(progress.progress_bar(ROWS_NOUN, partial(files.count, source)))
        total = run(Job(source, target, known, folder, tolerated, workers), threshold, report=Shown(advance))
    rate = f" in {total.seconds:.1f} s, {total.rows / total.seconds:,.0f} a second" if total.rows else ""
    before = f" {total.known:,} were there before." if total.known else ""
    return (
        f"{total.rows - total.rejected:,} {ROWS_NOUN} scored with version {known.version} of {known.name}{rate}; "
        f"{total.rejected:,} rejected."
        f"{before} The predictions are in {target}."
    )
