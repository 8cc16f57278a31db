"""Modelled hardware: energy and cycles of networks on edge accelerators, by an analytical cost model."""

from __future__ import annotations

from .cores import ACCELERATORS, CORE_STYLES, Accelerator, CoreStyle, edge_accelerator
from .cost_model import AcceleratorCostModel
from .network_costs import NetworkCosts
from .signatures import LayerCost, LayerSignature, layer_signature
from .table import FillReport, LayerTable

__all__ = [
    "ACCELERATORS", "CORE_STYLES", "Accelerator", "AcceleratorCostModel", "CoreStyle", "FillReport", "LayerCost",
    "LayerSignature", "LayerTable", "NetworkCosts", "edge_accelerator", "layer_signature",
]  # fmt: skip
