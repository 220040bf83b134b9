"""MLflow: runs of stages, parameters, artifacts, and the store of a checkout that was moved."""
