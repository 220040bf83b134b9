"""The pipeline: one module per DVC stage, and what the stages share."""

import zoneinfo

import app  # OpenMP's waiting, before LightGBM is loaded

zoneinfo.reset_tzpath(to=())  # time zones come from the locked tzdata package, never from the operating system
