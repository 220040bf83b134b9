"""The exceptions that end a command or a request, each with its exit code.

OnTimeError
├── BundleInvalid          the bundle is damaged or not compatible (3)
├── ModelUnavailable       no model can be loaded (4)
└── in stages/errors.py    ParamsInvalid, DataInvalid, TrackingUnavailable
"""


class OnTimeError(Exception):
    """An expected error; its message states the cause, the place and the command that resolves it."""

    exit_code = 1


class BundleInvalid(OnTimeError):
    """A model bundle that must not be served."""

    exit_code = 3


class ModelUnavailable(OnTimeError):
    """No model to serve: the version does not exist, or the registry is unreachable."""

    exit_code = 4
