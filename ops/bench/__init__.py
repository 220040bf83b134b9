"""Measure the speed of the service and of the pipeline."""
