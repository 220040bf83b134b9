"""Batches: Arrow streams by pyarrow, as arrays; what these readers refuse is validated by Pydantic, row by row."""
