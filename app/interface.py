"""The interface to the problem: the names that app/problem/__init__.py exports, checked once, at import.

The core imports these names from here and depends on nothing else of the problem. docs/adapt.md describes each name.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from app.errors import OnTimeError
from app.problem_kit.features import Floats

SERVING: dict[str, str] = {
    "NAME": "the name of the registered model and of MLflow's experiment",
    "TITLE": "the title of the API",
    "DESCRIPTION": "the description of the API",
    "ROWS": "the plural noun for rows, and the key of a batch's list",
    "POSITIVE": "the meaning of a target of 1, in words",
    "Request": "the Pydantic model of a request",
    "Outcome": "the Pydantic model of a reported outcome, with the property `positive`",
    "EXAMPLE": "a valid request",
    "OUTCOME_EXAMPLE": "a valid outcome",
    "FEATURES": "the features, in the order of the model's columns",
    "Lookups": "the tables that the features need besides the request",
    "columns": "a function from requests to columns",
    "compute": "a function from columns to features, float64, shape (n, k)",
}


class InterfaceIncomplete(OnTimeError):
    """A package of the problem does not import, or does not define a name of its interface."""


def missing(package: ModuleType, names: Mapping[str, str]) -> list[str]:
    """Return one line for each name that the package does not define."""
    file = f"{package.__name__.replace('.', '/')}/__init__.py"
    return [f"{file} lacks {name}: {text}" for name, text in names.items() if not hasattr(package, name)]


def load(name: str, names: Mapping[str, str]) -> ModuleType:
    """Import a package of the problem; raise InterfaceIncomplete if it does not define its interface."""
    try:
        package = importlib.import_module(name)
    except ImportError as err:
        if not (err.name or "").startswith(("app.problem", "stages.problem")):
            raise
        file = name.replace(".", "/")
        raise InterfaceIncomplete(f"{file} does not import: {err}. docs/adapt.md describes the interface.") from err
    absent = missing(package, names)
    if absent:
        raise InterfaceIncomplete(f"{'; '.join(absent)}. docs/adapt.md describes the interface.")
    return package


_problem = load("app.problem", SERVING)

# pylint: disable=wrong-import-position # the check comes first
from app.problem import (  # noqa: E402
    DESCRIPTION,
    EXAMPLE,
    FEATURES,
    NAME,
    OUTCOME_EXAMPLE,
    POSITIVE,
    ROWS,
    TITLE,
    Lookups,
    Outcome,
    Request,
    columns,
    compute,
)

FEATURE_NAMES = tuple(feature.name for feature in FEATURES)
CATEGORIES = tuple(feature.name for feature in FEATURES if feature.kind == "category")
NUMBERS = tuple(feature.name for feature in FEATURES if feature.kind == "number")


def members(group: str) -> list[int]:
    """Return the column indices of the features in a group."""
    return [i for i, feature in enumerate(FEATURES) if feature.group == group]


def without(group: str, features: Floats) -> Floats:
    """Return a copy of the features, shape (n, k), with those of a group set to NaN."""
    masked = features.copy()
    masked[:, members(group)] = float("nan")
    return masked


def _compute_one(request: Any, lookups: Any) -> list[float]:
    row: list[float] = compute(columns([request]), lookups)[0].tolist()
    return row


compute_one = getattr(_problem, "compute_one", _compute_one)
"""Compute the features of one request, a list of k numbers; the problem may define a faster function than `compute`."""

from_arrays = getattr(_problem, "from_arrays", None)
"""Convert the arrays of a batch to columns; None if the problem does not define it, and `columns` gets rows."""

# fmt: off
__all__ = [
    "CATEGORIES", "DESCRIPTION", "EXAMPLE", "FEATURES", "FEATURE_NAMES", "Lookups", "NAME", "NUMBERS",
    "OUTCOME_EXAMPLE", "Outcome", "POSITIVE", "ROWS", "Request", "TITLE", "columns", "compute", "compute_one",
    "from_arrays", "members", "without",
]
# fmt: on
