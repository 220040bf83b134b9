"""Decide whether a new model is needed, and train it."""
