"""`on-time stack`: the services around the model, by Compose and Kubernetes; credentials and backups."""
