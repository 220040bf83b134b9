"""Log a stage to MLflow by a process of its own, which imports MLflow (2 s) while the stage computes.

The stage writes one JSON array per line to the stdin of `python -m stages.recording`: first the arguments of
`tracking.stage_run`, then methods of `tracking.StageLog` with their arguments, last END. Without END, the run failed.
"""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stages.errors import run

END: list[Any] = ["end", {}]


class StageFailed(Exception):
    """The stage ended without END; it reports the reason itself."""


class RecordingFailed(Exception):
    """The process that logs has ended with an error, which it has printed."""


class Recorder:
    """The run of a stage in another process; what is logged must stay as it is until the run ends."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def metrics(self, **values: float) -> None:
        """Log metrics."""
        self.send("metrics", values)

    def artifact(self, path: Path) -> None:
        """Log a file or a folder."""
        self.send("artifact", {"path": str(path)})

    def bundle(self, directory: Path) -> None:
        """Log a bundle as a model."""
        self.send("bundle", {"directory": str(directory)})

    def send(self, *line: Any) -> None:
        """Write a line; if the process has ended, which it does with a printed error, exit with its code."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(line).encode() + b"\n")
        except BrokenPipeError:
            sys.exit(self._process.wait() or 1)


@contextmanager
def stage_run(stage: str, params: BaseModel, inputs: Sequence[str], model: bool = False) -> Iterator[Recorder]:
    """Log a stage as `tracking.stage_run` does; if MLflow fails, exit at once with the error's code.

    With `model`, logging a bundle is prepared in advance. To be called in the main thread.
    """
    command = [sys.executable, "-m", "stages.recording", *(["model"] if model else [])]
    ended = threading.Event()
    signal.signal(signal.SIGUSR1, _raise)
    # in a group of its own: Ctrl-C in a terminal ends the stage, and so this process
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, process_group=0) as process:
        threading.Thread(target=_watch, args=(process, ended), daemon=True).start()
        recorder = Recorder(process)
        try:
            recorder.send(stage, params.model_dump(mode="json"), inputs, time.time())
            try:
                yield recorder
            finally:
                ended.set()
            recorder.send(*END)
        except RecordingFailed:
            sys.exit(process.returncode)
    if process.returncode:
        sys.exit(process.returncode)


def _watch(process: subprocess.Popen[bytes], ended: threading.Event) -> None:
    """Interrupt the main thread if the process fails before the stage has ended, so that no time is lost."""
    if process.wait() and not ended.is_set():
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


def _raise(*_: object) -> None:
    raise RecordingFailed


def main() -> None:
    """Log the run that is described on stdin."""
    gc.disable()  # a sixth of the imports' time, and the process is short
    from stages import tracking  # pylint: disable=import-outside-toplevel # it imports MLflow

    with suppress(StageFailed), tracking.stage_run(*json.loads(sys.stdin.readline())) as log:
        if "model" in sys.argv:
            tracking.prepare_bundle()
        for line in sys.stdin:
            if (call := json.loads(line)) == END:
                return
            getattr(log, call[0])(**call[1])
        raise StageFailed


if __name__ == "__main__":
    run(main)
