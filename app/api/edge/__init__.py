"""What every request passes before a route: identity, limits, keys, bodies, errors; it imports no route."""
