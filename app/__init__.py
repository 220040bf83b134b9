"""The service: floors from `errors` up to `api`, as pyproject.toml lists them; it imports neither stages nor ops."""
