"""Commands of the workflows besides tests: lock check, reproduction, GitHub."""
