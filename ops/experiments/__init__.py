"""Search for better training parameters."""
