"""The pipeline: one module per DVC stage, and shared modules."""

import zoneinfo

import app  # sets OMP_WAIT_POLICY before LightGBM is loaded

zoneinfo.reset_tzpath(to=())  # time zones come from the locked tzdata package, never from the operating system
