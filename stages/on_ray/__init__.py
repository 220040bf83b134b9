"""The engine `ray`: tasks in a cluster, and LightGBM trained by Ray Train; only with `engine: ray`."""
