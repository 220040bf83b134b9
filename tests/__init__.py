"""The tests, by what they need: unit, pipeline, api, ops, e2e."""

from app import environment

environment.apply()  # as a program does, before LightGBM is loaded
