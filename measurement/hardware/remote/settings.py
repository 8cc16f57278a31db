"""What a user decides about a board: which clocks are steered, which are pinned, what runs the programs.

Imports with the standard library alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Engine = Literal["auto", "torch", "onnxruntime", "trtexec"]
Processor = Literal["gpu", "cpu"]
Dtype = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class JetsonSettings:
    """What is steered, what is pinned, and what runs the programs.

    Attributes:
        domains: clock domain of hadas (``gpu``, ``cpu``, ``emc``) -> domains of the board that move
            together, e.g. ``{"gpu": ("gpu",), "emc": ("emc",)}``; empty = clocks are not controlled.
        pinned: domain of the board -> frequency in Hz, ``max`` or ``min``.
        engine: what runs the programs; ``auto`` = the first that the device has of torch,
            onnxruntime and trtexec.
        processor: where they run.  ``cpu`` runs them on the cores of the ``cpu`` domain alone.
        dtype: of weights and activations.
        block_s: a loop that gives no block for so long, past what a block should take, hangs.
    """

    domains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pinned: Mapping[str, int | Literal["max", "min"]] = field(default_factory=dict)
    engine: Engine = "auto"
    processor: Processor = "gpu"
    dtype: Dtype = "fp32"
    block_s: float = 20.0
