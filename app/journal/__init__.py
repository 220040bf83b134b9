"""The record of predictions and outcomes in a database, written by a thread that never delays a request."""
