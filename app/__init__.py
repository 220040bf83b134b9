"""The prediction service: what the image holds."""

import os

# OpenMP's threads wait without spinning, or two trainings side by side take an hour. Read when libgomp is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
