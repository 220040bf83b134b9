"""The problem, as the service needs it: request and outcome, features, lookups."""
