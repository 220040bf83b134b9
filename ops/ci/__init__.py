"""`on-time ci`: what the workflows run besides tests: lock check, reproduction, GitHub."""
