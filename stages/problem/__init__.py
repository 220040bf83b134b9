"""The training half of the problem: raw tables, rules, repairs, rows, slices, and texts for reports.

The core uses these names only; docs/adapt.md describes each of them.
"""

from stages.problem.card import CARD
from stages.problem.columns import COLUMNS, KEYS
from stages.problem.params import Params
from stages.problem.recorded import raw_rows
from stages.problem.rows import EDGE_CASES, columns, lookups, outcomes, reach_days, requests, rows, scenarios
from stages.problem.rules import REPAIRS, RULES
from stages.problem.slicing import slices
from stages.problem.times import days

__all__ = [
    "CARD",
    "COLUMNS",
    "EDGE_CASES",
    "KEYS",
    "Params",
    "REPAIRS",
    "RULES",
    "columns",
    "days",
    "lookups",
    "outcomes",
    "raw_rows",
    "reach_days",
    "requests",
    "rows",
    "scenarios",
    "slices",
]
