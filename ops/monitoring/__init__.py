"""`on-time monitor`: drift, alerts, replay, and the programs of the stack on this machine."""
