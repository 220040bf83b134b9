"""The model bundle: loaded, verified, and asked for predictions."""
