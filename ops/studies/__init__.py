"""Studies, which measure the system and are not needed to run it: gates, drift monitor, a year of the loop."""
