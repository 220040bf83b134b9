"""The training half of the problem: raw tables, rules, repairs, rows, slices, and texts for reports.

The core uses these names only; docs/adapt.md describes each of them.
"""

from stages.problem.card import CARD
from stages.problem.columns import KEYS, TABLES
from stages.problem.params import Params
from stages.problem.recorded import raw_rows
from stages.problem.rows import (
    EDGE_CASES,
    arrays_of_rows,
    labelled_rows,
    lookups,
    outcomes,
    reach_days,
    requests,
    scenarios,
)
from stages.problem.rules import REPAIRS, RULES
from stages.problem.slicing import slices
from stages.problem.times import days
