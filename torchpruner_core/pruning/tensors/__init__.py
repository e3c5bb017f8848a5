"""Slices taken out of a model's tensors, and put back bit for bit."""
