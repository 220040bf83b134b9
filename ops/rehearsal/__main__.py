"""Run the scenes, or some of them, and print what each workflow did."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from ops.rehearsal.runner import Done
from ops.rehearsal.scenes import SCENES, prepared
from stages.errors import run

MARKS = {"ok": "ok", "failed": "RED", "skipped": "skipped", "elsewhere": "not here"}
SHOWN = 14  # last lines of a red verb


def say(done: Done) -> None:
    """Print a step, and the last words of a red one."""
    print(f"  {done.job:<10} {done.step:<40} {MARKS[done.status]:<8} {f'{done.seconds:.1f} s' if done.seconds else ''}")
    if done.status == "failed":
        lines = [line for line in done.output.strip().splitlines() if not line.startswith("make: ***")]
        print("\n".join(f"      | {line}" for line in lines[-SHOWN:]), flush=True)


def main() -> None:
    """Prepare the small project, play the scenes, end with the first one that goes otherwise."""
    parser = argparse.ArgumentParser(prog="python -m ops.rehearsal")
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help=f"some of: {', '.join(SCENES)}")
    names = parser.parse_args().scenes or list(SCENES)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="on-time-rehearsal-") as folder:
        with prepared(Path(folder), say) as stage:
            print(
                f"A small project with a model in Production, made in {time.perf_counter() - started:.0f} s", flush=True
            )
            for name in names:
                print(f"\n{name}: {SCENES[name].__doc__}", flush=True)
                SCENES[name](stage)
    print(f"\n{len(names)} scenes as promised, in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    run(main)
