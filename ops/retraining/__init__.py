"""Decide whether a new model is needed, train it, and run a year of these decisions in fast motion."""
