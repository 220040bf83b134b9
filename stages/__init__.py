"""The pipeline: five stages at the top, each a recipe, and behind them a folder for each of their jobs."""

import sys
import zoneinfo
from types import TracebackType

from app.errors import OnTimeError

zoneinfo.reset_tzpath(to=())  # time zones come from the locked tzdata package, never from the operating system


def _report(kind: type[BaseException], err: BaseException, trace: TracebackType | None) -> None:
    if isinstance(err, OnTimeError):
        print(f"error: {err}", file=sys.stderr)
    elif not isinstance(err, KeyboardInterrupt):
        sys.__excepthook__(kind, err, trace)


if sys.argv[0] == "-m":  # `python -m stages.train`: no traceback for expected errors and Ctrl-C during its imports
    sys.excepthook = _report
