"""The problem, as the service needs it: the request, the outcome, the features and their lookups.

The core reaches the problem through the names below and no others; docs/adapt.md describes each of them.
"""

from app.problem.features import FEATURES, Flights, columns, compute, compute_one
from app.problem.lookups import Lookups
from app.problem.outcome import EXAMPLE as OUTCOME_EXAMPLE
from app.problem.outcome import LATE_MINUTES
from app.problem.outcome import Arrival as Outcome
from app.problem.request import EXAMPLE
from app.problem.request import Flight as Request

NAME = "flight-delay"
TITLE = "On-time"
ROWS = "flights"
POSITIVE = f"not arriving on time: {LATE_MINUTES} or more minutes late, cancelled or diverted"
DESCRIPTION = f"The probability that a flight leaving New York will not arrive on time:\n{POSITIVE.partition(': ')[2]}."

__all__ = [
    "DESCRIPTION",
    "EXAMPLE",
    "FEATURES",
    "Flights",
    "Lookups",
    "NAME",
    "OUTCOME_EXAMPLE",
    "Outcome",
    "POSITIVE",
    "ROWS",
    "Request",
    "TITLE",
    "columns",
    "compute",
    "compute_one",
]
