"""`on-time bench scale`: time and memory of the stages on several years."""
