"""Watch the service and its model: drift monitor, dashboards, alerts, replay."""
