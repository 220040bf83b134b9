"""The prediction service, as shipped in the image."""
