"""The pipeline: one module per DVC stage, and shared modules."""

import sys
import zoneinfo
from types import TracebackType

zoneinfo.reset_tzpath(to=())  # time zones come from the locked tzdata package, never from the operating system


def _without_interrupts(kind: type[BaseException], err: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, err, trace)


if sys.argv[0] == "-m":  # `python -m stages.train`: no traceback for Ctrl-C during its imports, which take seconds
    sys.excepthook = _without_interrupts
