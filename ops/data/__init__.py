"""Add new rows to data/, and list its contents."""
