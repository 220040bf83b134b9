"""The tests, by what they need: unit, pipeline, api, ops, e2e."""

import stages  # OpenMP's waiting and the time zones, before anything else is loaded
