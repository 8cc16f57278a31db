"""Quantized early-exit networks trained jointly with their exits, and what they get right."""
