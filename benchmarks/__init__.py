"""Measurements: speed beside Torch-Pruning, the service under load, coverage of architectures."""
