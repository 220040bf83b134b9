"""Bring new rows into data/."""
