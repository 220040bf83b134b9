"""Grafana's dashboards: YAML files with panels and queries, and the program that turns them into Grafana's JSON."""
