"""The study of early exits, quantization and mapping on an edge accelerator."""
