"""The exceptions that stop a stage; the tree is drawn in app/errors.py."""

from __future__ import annotations

import sys
from collections.abc import Callable

from app.errors import OnTimeError


class ParamsInvalid(OnTimeError):
    """params.yaml has a key or a value that it must not have."""

    exit_code = 5


class DataInvalid(OnTimeError):
    """The raw data is damaged, or breaks a rule beyond its tolerance."""

    exit_code = 6


class TrackingUnavailable(OnTimeError):
    """MLflow does not answer."""

    exit_code = 7


def run(main: Callable[[], None]) -> None:
    """Run a command; an error of ours ends it with one line on stderr and its own exit code."""
    try:
        main()
    except OnTimeError as err:
        print(f"error: {err}", file=sys.stderr)
        sys.exit(err.exit_code)
