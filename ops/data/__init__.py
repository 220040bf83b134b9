"""`on-time data`: read, check and add new rows, and list data/."""
