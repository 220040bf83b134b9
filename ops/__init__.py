"""What surrounds pipeline and service: the registry's commands, gates, load and benchmarks."""
