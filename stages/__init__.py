"""The pipeline: one module per DVC stage, and what the stages share."""
