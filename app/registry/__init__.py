"""Registered versions: downloaded from MLflow, loaded, and watched for changes of the alias."""
