"""The model bundle: loading, verification and prediction."""
