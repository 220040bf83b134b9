"""The command: which model scores, and what is shown meanwhile."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from app.interface import NAME, ROWS
from app.registry import download, version
from ops.registry import commands
from ops.scoring import on_ray
from ops.scoring.output import Job, Part
from ops.scoring.score import score as score_files
from stages import tracking


def score(
    source: str, target: str, number: str | None, alias: str, tolerated: float, workers: int, engine: str = "local"
) -> str:
    """Score files with a version, by default the one with the alias, and return what was done."""
    uri = tracking.tracking_uri()
    with tempfile.TemporaryDirectory(prefix="on-time-score-") as scratch:
        folder = Path(scratch) / "model"
        if number:
            found = commands.find(tracking.connect(), NAME, number, "", "`make history` shows them")
        else:
            found = download.find(uri, NAME, alias)
        known = download.export(found, "" if number else alias, uri, folder)
        threshold = version.load(folder, "baked").bundle.threshold
        run = on_ray.score if engine == "ray" else score_files
        total = run(Job(source, target, known, folder, tolerated, workers), threshold, _report)
    rate = f" in {total.seconds:.1f} s, {total.rows / total.seconds:,.0f} a second" if total.rows else ""
    before = f" {total.known:,} were there before." if total.known else ""
    return (
        f"{total.rows:,} {ROWS} scored with version {known.version} of {known.name}{rate}; {total.rejected:,} rejected."
        f"{before} The predictions are in {target}."
    )


def _report(part: Part, rate: float) -> None:
    print(f"{part.file}: {part.rows:,} rows, {rate:,.0f} a second, {part.rejected:,} rejected", file=sys.stderr)
