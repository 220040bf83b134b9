"""What surrounds pipeline and service: the registry's commands, gates, load and benchmarks."""

import stages  # the time zones
