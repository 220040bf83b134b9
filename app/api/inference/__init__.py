"""The Open Inference Protocol: its routes, messages and tensors, translated to and from those of /predict."""
