"""`on-time problem check`: the functions of a problem must be consistent on its data."""
