"""Clones and small projects in which the pipeline runs."""
