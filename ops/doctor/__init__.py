"""`on-time doctor`: what this machine has and lacks."""
