"""The exceptions that stop a command or a request, each with the exit code of the process that it ends.

OnTimeError
├── BundleInvalid          the bundle is damaged, or not one of ours (3)
├── ModelUnavailable       no model can be loaded (4)
└── in stages/errors.py    ParamsInvalid, DataInvalid, TrackingUnavailable
"""


class OnTimeError(Exception):
    """What is wrong, where, and the command that helps."""

    exit_code = 1


class BundleInvalid(OnTimeError):
    """A model bundle that must not be served."""

    exit_code = 3


class ModelUnavailable(OnTimeError):
    """No model to serve: no such version, or no registry that answers."""

    exit_code = 4
