"""Write the dashboards."""

from ops.monitoring.dashboards.build import main

main()
