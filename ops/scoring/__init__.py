"""`on-time model score`: predictions for files, part by part, without the service and in constant memory.

It reads the fields of a request from Parquet, CSV and Arrow files with the readers and checks of the service's batches.
"""
