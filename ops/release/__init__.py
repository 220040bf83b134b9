"""Build, check, publish and deploy the image of a version."""
