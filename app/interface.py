"""The interface to the serving half of the problem: what app/problem has to define, and the names that the core uses.

The core imports these names from here and depends on nothing else of app/problem. docs/adapt.md describes each name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from app.errors import OnTimeError
from app.problem_kit.features import Feature, Floats
from app.problem_kit.models import Reported, Strict


class InterfaceIncomplete(OnTimeError):
    """A package of the problem does not define a name of its interface."""


class LookupTables(Protocol):
    """What the features need besides the request; JSON in the bundle."""

    @property
    def vocabularies(self) -> Mapping[str, Sequence[str]]:
        """Return the known words of each categorical feature, in the order of their codes."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; `from_json` restores the same lookups."""


class ServingProblem(Protocol):
    """The members of app/problem."""

    # pylint: disable=invalid-name # names of a module

    NAME: str
    """Name of the registered model and of MLflow's experiment."""
    TITLE: str
    """Title of the API."""
    DESCRIPTION: str
    """Description of the API."""
    ROWS_NOUN: str
    """Plural noun for the rows, and the key of a batch's list."""
    POSITIVE: str
    """Meaning of a target of 1, in words."""
    EXAMPLE: dict[str, Any]
    """A valid request."""
    OUTCOME_EXAMPLE: dict[str, Any]
    """A valid outcome."""

    @property
    def Request(self) -> type[Strict]:
        """The Pydantic model of a request."""

    @property
    def Outcome(self) -> type[Reported]:
        """The Pydantic model of a reported outcome."""

    @property
    def Lookups(self) -> Callable[..., LookupTables]:
        """The class of the lookups, which also has `from_json`."""

    @property
    def FEATURES(self) -> Sequence[Feature]:
        """The features, in the order of the model's columns."""

    @property
    def arrays_of_requests(self) -> Callable[[list[Any]], Any]:
        """A function from n requests to the arrays that `compute` takes."""

    @property
    def compute(self) -> Callable[[Any, Any], Floats]:
        """A function from these arrays and the lookups to the features, float64, shape (n, k)."""


def names_of(interface: type) -> list[str]:
    """Return the names of the members of an interface."""
    return [name for name in (*interface.__annotations__, *vars(interface)) if not name.startswith("_")]


def gap(name: str, interface: type, err: ImportError) -> Exception:
    """Return the error to raise for a package of the problem that does not import; it names all that is absent."""
    if not (err.name or "").startswith(name):
        return err
    file, package = name.replace(".", "/"), sys.modules.get(name)
    absent = [member for member in names_of(interface) if package and not hasattr(package, member)]
    text = f"/__init__.py lacks {', '.join(absent)}" if absent else f" does not import: {err}"
    return InterfaceIncomplete(f"{file}{text}. docs/adapt.md describes the interface.")


try:
    from app import problem
    from app.problem import (  # pylint: disable=unused-import # they are passed on
        DESCRIPTION,
        EXAMPLE,
        FEATURES,
        NAME,
        OUTCOME_EXAMPLE,
        POSITIVE,
        ROWS_NOUN,
        TITLE,
        Lookups,
        Outcome,
        Request,
        arrays_of_requests,
        compute,
    )
except ImportError as error:
    raise gap("app.problem", ServingProblem, error) from error

SERVING: ServingProblem = problem
"""The package itself: mypy compares it with its interface here."""

FEATURE_NAMES = tuple(feature.name for feature in FEATURES)
CATEGORIES = tuple(feature.name for feature in FEATURES if feature.kind == "category")
NUMBERS = tuple(feature.name for feature in FEATURES if feature.kind == "number")


def members(group: str) -> list[int]:
    """Return the column indices of the features in a group."""
    return [i for i, feature in enumerate(FEATURES) if feature.group == group]


def without(group: str, features: Floats) -> Floats:
    """Return a copy of the features, shape (n, k), with the features of a group set to NaN."""
    masked = features.copy()
    masked[:, members(group)] = float("nan")
    return masked


def _compute_one(request: Any, lookups: Any) -> list[float]:
    row: list[float] = compute(arrays_of_requests([request]), lookups)[0].tolist()
    return row


compute_one: Callable[[Any, Any], list[float]] = getattr(problem, "compute_one", _compute_one)
"""Compute the features of one request, a list of k numbers; the problem may define a faster function than `compute`."""

from_arrays: Callable[[Any], Any] | None = getattr(problem, "from_arrays", None)
"""Convert the arrays of a batch to those that `compute` takes; None if the problem does not define it."""
