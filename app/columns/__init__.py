"""Batches read as columns or by a faster decoder; what these refuse is validated by Pydantic, row by row."""
