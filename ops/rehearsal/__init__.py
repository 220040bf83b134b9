"""`make rehearse`: the workflows' verbs, in order, where GitHub, its runners and the shared MLflow have stand-ins."""
