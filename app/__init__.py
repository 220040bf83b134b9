"""The prediction service, as shipped in the image."""

import os

# Passive OpenMP waiting: with spinning threads, two concurrent trainings take an hour. libgomp reads it when loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
