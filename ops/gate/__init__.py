"""Decide whether a model is good enough: for a pull request, and for promotion."""
