"""The second system: early exits, quantization and mapping on edge accelerators.

A study trains whole quantized networks (accuracy is measured), looks their costs up in a table that an analytical
model fills (costs are MODELLED), and searches with predictors that grow with the archive of trained networks.
"""

from __future__ import annotations

from .config import EdgeConfig
from .loop import EdgeStudy

__all__ = ["EdgeConfig", "EdgeStudy"]
