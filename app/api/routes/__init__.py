"""Routes with a module of their own: bodies of batches, and outcomes."""
