"""Better parameters, and the decision that a new model is needed; it uses the gate and the stages' folders."""
