"""What `validate` needs: raw tables, fetched, read, split by month, checked and repaired."""
