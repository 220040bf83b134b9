"""The exceptions of the pipeline; app/errors.py shows the whole tree."""

from __future__ import annotations

import sys
from collections.abc import Callable

from app import environment
from app.errors import OnTimeError


class ParamsInvalid(OnTimeError):
    """params.yaml has an unknown key or an invalid value."""

    exit_code = 5


class DataInvalid(OnTimeError):
    """The raw data is damaged, or violates a rule beyond its tolerance."""

    exit_code = 6


class TrackingUnavailable(OnTimeError):
    """MLflow is unreachable."""

    exit_code = 7


def run(main: Callable[[], None]) -> None:
    """Run a command; on an OnTimeError, or an error of the operating system, print one line and exit with its code."""
    try:
        environment.check()
        main()
    except OnTimeError as err:
        print(f"error: {err}", file=sys.stderr)
        sys.exit(err.exit_code)
    except OSError as err:
        sys.exit(f"error: {err.strerror or err}: {err.filename or 'output'}")
