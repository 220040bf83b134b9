"""What `evaluate` and `register` need: metrics, baseline, plots, model card, floors, and the registered version."""
