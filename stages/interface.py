"""The interface to the training half of the problem: what stages/problem has to define, and the names that are used.

The core imports these names from here and depends on nothing else of stages/problem. docs/adapt.md describes each name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import pandas as pd

from app.interface import Outcome, Request, gap
from stages.problem_kit.params import Coverage
from stages.problem_kit.rows import LabelledRows, Mask
from stages.problem_kit.rules import Rules, Tables


class TrainingProblem(Protocol):
    """The members of stages/problem."""

    # pylint: disable=invalid-name # names of a module

    TABLES: dict[str, dict[str, Any]]
    """Type and range of each column of each table, as pandera's columns."""
    KEYS: dict[str, list[str]]
    """The columns that identify a row of each table."""
    RULES: Rules
    """The rules between columns, rows and tables."""

    @property
    def Params(self) -> type[Coverage]:
        """The section `problem` of params.yaml."""

    @property
    def REPAIRS(self) -> Mapping[str, Mapping[str, str]]:
        """The repair of rows that violate a rule within its tolerance."""

    @property
    def EDGE_CASES(self) -> Sequence[dict[str, Any]]:
        """Changes to a request that keep it valid but unusual."""

    @property
    def CARD(self) -> Mapping[str, str]:
        """The paragraphs of the model card."""

    @property
    def days(self) -> Callable[[str, pd.DataFrame, Any], pd.Series | None]:
        """A function to the day of each row of a table; None for a table without days."""

    @property
    def labelled_rows(self) -> Callable[[Tables, Any], LabelledRows]:
        """A function to one row per prediction, with target, day, group and key."""

    @property
    def lookups(self) -> Callable[[Tables, Iterable[pd.DataFrame], Any], Any]:
        """A function to the lookups, fitted on the training rows."""

    @property
    def arrays_of_rows(self) -> Callable[..., Any]:
        """A function from rows, tables, lookups, parameters and a scenario to the arrays that `compute` takes."""

    @property
    def scenarios(self) -> Callable[[Any], list[str]]:
        """A function to the names of the scenarios."""

    @property
    def requests(self) -> Callable[[Any], list[dict[str, Any]]]:
        """A function from the arrays that `compute` takes to bodies of POST /predict."""

    @property
    def outcomes(self) -> Callable[[pd.DataFrame, Any], list[dict[str, Any]]]:
        """A function from rows to bodies of POST /outcomes, without an id."""

    @property
    def slices(self) -> Callable[[pd.DataFrame, Any], dict[str, Mask]]:
        """A function from features and lookups to the row mask of each slice."""


try:
    from stages import problem
    from stages.problem import (  # pylint: disable=unused-import # they are passed on
        CARD,
        EDGE_CASES,
        KEYS,
        REPAIRS,
        RULES,
        TABLES,
        Params,
        arrays_of_rows,
        days,
        labelled_rows,
        lookups,
        outcomes,
        requests,
        scenarios,
        slices,
    )
except ImportError as error:
    raise gap("stages.problem", TrainingProblem, error) from error

TRAINING: TrainingProblem = problem
"""The package itself: mypy compares it with its interface here."""

raw_rows: Callable[[Sequence[Request], Sequence[Outcome], Tables], Tables] | None = getattr(problem, "raw_rows", None)
"""Turn requests and their outcomes into raw rows; optional, as requests may lack what the tables have."""

reach_days: Callable[[Params], int] = getattr(problem, "reach_days", lambda _: 0)
"""Return how many days before and after a row `labelled_rows` and `arrays_of_rows` read other rows; optional."""
