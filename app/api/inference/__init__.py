"""The Open Inference Protocol: its routes, messages and tensors, translated to and from the schemas of /predict."""
