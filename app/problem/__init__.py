"""The serving half of the problem: request, outcome, features and their lookups.

The core uses these names only; docs/adapt.md describes each of them.
"""

from app.problem import outcome, request
from app.problem.batch import from_arrays
from app.problem.features import FEATURES, Flights, arrays_of_requests, compute, compute_one
from app.problem.lookups import Lookups
from app.problem.outcome import LATE_MINUTES
from app.problem.request import EXAMPLE

Request = request.Flight
Outcome = outcome.Arrival
OUTCOME_EXAMPLE = outcome.EXAMPLE

NAME = "flight-delay"
TITLE = "On-time"
ROWS_NOUN = "flights"
POSITIVE = f"not arriving on time: {LATE_MINUTES} or more minutes late, cancelled or diverted"
DESCRIPTION = f"The probability that a flight leaving New York will not arrive on time:\n{POSITIVE.partition(': ')[2]}."
