"""Measure how often the promotion gate is wrong, and what it refuses, on the real data."""
