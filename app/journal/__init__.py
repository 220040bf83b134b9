"""The journal: predictions and their outcomes in SQLite or PostgreSQL."""
