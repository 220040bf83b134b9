"""Registered versions: which one has the alias, download, verification, and the copy for the next start."""
