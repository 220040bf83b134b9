"""Batches as arrays, without an object per row: Arrow streams are read here, and checked against the request schema."""
