"""The HTTP interface: routes, limits, errors, and the fast path of predictions."""
