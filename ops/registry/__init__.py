"""Promote, roll back, compare and list the versions in MLflow's registry."""
