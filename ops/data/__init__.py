"""`on-time data`: new rows are read, judged and added, and data/ is listed."""
