"""The HTTP interface: application, fast path, answers; it may import all of app, and no floor of app imports it."""
