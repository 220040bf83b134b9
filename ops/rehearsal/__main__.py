"""Run the scenes, or some of them, and print what each workflow did."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from ops.rehearsal.delivery import DELIVERY
from ops.rehearsal.runner import Done
from ops.rehearsal.scenes import SCENES, SceneFailed, prepared
from ops.rehearsal.sites import world
from ops.release.docker import has_engine
from stages.errors import run

MARKS = {"ok": "ok", "failed": "RED", "skipped": "skipped", "elsewhere": "not here"}
SHOWN = 14  # last lines of a red verb


def say(done: Done) -> None:
    """Print a step that was taken, a verb that is not rehearsed, and the last words of a red one."""
    if done.step and (done.status == "skipped" or done.status == "elsewhere" and not done.step.startswith("make ")):
        return
    print(f"  {done.job:<20} {done.step:<30} {MARKS[done.status]:<8} {f'{done.seconds:.1f} s' if done.seconds else ''}")
    if done.status == "failed":
        lines = [line for line in done.output.strip().splitlines() if not line.startswith("make: ***")]
        print("\n".join(f"      | {line}" for line in lines[-SHOWN:]), flush=True)


def main() -> None:
    """Prepare the small project, play the scenes, end with the first one that goes otherwise."""
    parser = argparse.ArgumentParser(prog="python -m ops.rehearsal")
    every = [*SCENES, *DELIVERY]
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=f"some of: {', '.join(every)}")
    names = parser.parse_args().scenes or every
    delivered = [name for name in DELIVERY if name in names]
    if delivered and not has_engine():
        raise SceneFailed(
            f"{', '.join(delivered)} need a Docker engine; without: make rehearse SCENES='{' '.join(SCENES)}'."
        )
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="on-time-rehearsal-") as folder:
        stage = prepared(Path(folder), say)
        print(f"A small project with a first model, made in {time.perf_counter() - started:.0f} s", flush=True)
        for name in [name for name in SCENES if name in names]:
            print(f"\n{name}: {SCENES[name].__doc__}", flush=True)
            SCENES[name](stage)
        if delivered:
            with world(stage, Path(folder)) as outside:
                for name in delivered:
                    print(f"\n{name}: {DELIVERY[name].__doc__}", flush=True)
                    DELIVERY[name](outside)
    print(f"\n{len(names)} scenes as promised, in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    run(main)
