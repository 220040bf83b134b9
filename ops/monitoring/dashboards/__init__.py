"""Grafana's boards as code: what they show is in one module each, what they look like in build.py."""
