"""What a test starts: databases, registries, the service, and stand-ins for other programs."""
