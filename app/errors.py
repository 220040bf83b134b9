"""The exceptions that end a command or a request, with the exit codes of all commands.

0: done. 1: failed, by an error below or, with a traceback, by a defect. 2: wrong use of the command. 3: refused by a
gate or a check; nothing was changed. Make ends with 2 for each of them.

OnTimeError                 (1)
├── BundleInvalid           the bundle is damaged or not compatible
├── ModelUnavailable        no model can be loaded, or MLflow cannot be used
│   └── VersionMissing      the registry has no version with the alias
├── Refused                 the verdict of a gate or a check (3): PromotionRefused, LockStale, …
└── in stages/base/errors.py     FileInvalid, ParamsInvalid, DataInvalid
"""


class OnTimeError(Exception):
    """An expected error; its message states the cause, the place and the command that resolves it."""

    exit_code = 1


class BundleInvalid(OnTimeError):
    """A model bundle that must not be served."""


class ModelUnavailable(OnTimeError):
    """No model to serve: the version does not exist, or the registry cannot be used."""


class VersionMissing(ModelUnavailable):
    """The registry replied that no version has the alias."""


class Refused(OnTimeError):
    """A gate or a check ran and did not pass."""

    exit_code = 3
