"""What the workflows run besides tests: lock check, reproduction, GitHub."""
