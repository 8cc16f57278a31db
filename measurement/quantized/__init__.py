"""Quantized early-exit networks trained jointly with their exits, and what they get right."""

from .meter import QuantizedMeter
from .policy import (
    NETWORK_THRESHOLDS,
    PolicyKind,
    QuantizedOutcome,
    exit_policy,
    leaves_at,
    lowest_threshold,
    outcome_with,
)
from .recipes import QUANTIZED_RECIPES, QuantizedRecipe
from .start import Progress, SharedStart

__all__ = [
    "NETWORK_THRESHOLDS",
    "QUANTIZED_RECIPES",
    "PolicyKind",
    "Progress",
    "QuantizedMeter",
    "QuantizedOutcome",
    "QuantizedRecipe",
    "SharedStart",
    "exit_policy",
    "leaves_at",
    "lowest_threshold",
    "outcome_with",
]
