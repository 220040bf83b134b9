"""The drift monitor: the last predictions against the reference sample of the model that made them, and outcomes."""
