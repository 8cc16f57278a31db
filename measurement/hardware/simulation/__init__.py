"""Simulated devices: parameters with their sources, the model, and its fit to public measurements."""
