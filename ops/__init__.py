"""What surrounds pipeline and service: the registry's commands, gates, load and benchmarks."""

import stages  # OpenMP's waiting and the time zones, before anything else is loaded
