"""The interface to the training half of the problem: the names that stages/problem exports, checked at import.

The core imports these names from here and depends on nothing else of the problem. docs/adapt.md describes each name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from app.interface import Outcome, Request, load
from stages.problem_kit.rules import Tables

TRAINING: dict[str, str] = {
    "Params": "the section `problem` of params.yaml",
    "COLUMNS": "type and range of each column of each table",
    "KEYS": "the columns that identify a row of each table",
    "days": "the day of each row of a table",
    "RULES": "the rules between columns, rows and tables",
    "REPAIRS": "the repair of rows that violate a rule within its tolerance",
    "rows": "one row per prediction, with target, day and group",
    "lookups": "the lookups, fitted on the training rows",
    "columns": "rows as columns for the features",
    "scenarios": "the names of the scenarios",
    "requests": "columns as bodies of POST /predict",
    "EDGE_CASES": "changes to a request that keep it valid but unusual",
    "outcomes": "rows as bodies of POST /outcomes",
    "slices": "the row mask of each slice",
    "CARD": "the paragraphs of the model card",
}

_problem = load("stages.problem", TRAINING)

# pylint: disable=wrong-import-position # the check comes first
from stages.problem import (  # noqa: E402
    CARD,
    COLUMNS,
    EDGE_CASES,
    KEYS,
    REPAIRS,
    RULES,
    Params,
    columns,
    days,
    lookups,
    outcomes,
    requests,
    rows,
    scenarios,
    slices,
)

raw_rows: Callable[[Sequence[Request], Sequence[Outcome], Tables], Tables] | None = getattr(_problem, "raw_rows", None)
"""Turn requests and their outcomes into raw rows; optional, as requests may lack what the tables have."""

reach_days: Callable[[Params], int] = getattr(_problem, "reach_days", lambda _: 0)
"""Return how many days before and after a row `rows` and `columns` read other rows; optional."""

# fmt: off
__all__ = [
    "CARD", "COLUMNS", "EDGE_CASES", "KEYS", "Params", "REPAIRS", "RULES", "columns", "days", "lookups",
    "outcomes", "raw_rows", "reach_days", "requests", "rows", "scenarios", "slices",
]
# fmt: on
