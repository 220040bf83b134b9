"""The drift monitor: compare the last predictions with the model's reference sample, and with their outcomes."""
