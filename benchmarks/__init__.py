"""Measurements: speed beside Torch-Pruning, the service under load, and the coverage of architectures."""
