"""What calls the service: requests, batches, browsers."""
