"""The exceptions of the pipeline; app/errors.py shows the whole tree."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable

from app import environment
from app.errors import OnTimeError

FULL = {errno.ENOSPC, errno.EDQUOT}
"""Errors of a file system, or of a user's share of it, that has no space left."""


class FileInvalid(OnTimeError):
    """A JSON or YAML file that git tracks is missing or damaged, or holds conflict markers."""


class ParamsInvalid(FileInvalid):
    """params.yaml has an unknown key or an invalid value."""


class DataInvalid(OnTimeError):
    """The raw data is damaged, or violates a rule beyond its tolerance."""


def expected(err: Exception) -> OnTimeError | None:
    """Return the error to report for an exception: itself, a failure of MLflow or of the system; None for a crash."""
    if isinstance(err, OnTimeError):
        return err
    if "mlflow" in sys.modules:
        from app.registry import failures  # pylint: disable=import-outside-toplevel # only with MLflow, which takes 2 s

        known = failures.recognised(err)
        if known:
            return known
    if not isinstance(err, OSError):
        return None
    where = err.filename or f"the output, or a file below {os.getcwd()}"
    way = " Free some space (`df -h`), and run the command again." if err.errno in FULL else ""
    return OnTimeError(f"{err.strerror or err}: {where}.{way}")


def run(main: Callable[[], None]) -> None:
    """Run a command; on an expected error, print one line to stderr and exit with its code; after Ctrl-C, with 130."""
    try:
        environment.apply()
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as err:  # pylint: disable=broad-exception-caught # all others are raised again
        known = expected(err)
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        sys.exit(known.exit_code)
