"""`on-time ci pictures`: the pictures of the documentation, taken from the running product in a browser."""

NAMES = ("page", "live", "swagger", "mlflow", "comment", "plots", "boards")
"""What can be taken; `page` and `mlflow` give more than one file."""
