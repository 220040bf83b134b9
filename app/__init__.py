"""The prediction service: what the image holds."""
