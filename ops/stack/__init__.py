"""Run everything around the service: Compose, Kubernetes, credentials, backups."""
