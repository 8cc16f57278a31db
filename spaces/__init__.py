"""What can be designed: backbones, exits, clock settings, and the work they ask for.

Imports with numpy alone.
"""

from __future__ import annotations

from ..errors import SpaceError
from .attentivenas import attentivenas_space
from .backbone import BackboneSpace, MBConvSpace, genome_from_values
from .dvfs import CLOCK_TABLES, PINNED, ClockDomain, ClockTable, Setting, SwitchingCost, clock_table
from .exits import Exits, exits_from_heads
from .genomes import IntArray, Variable
from .macro import Backbone
from .mini import mini_space
from .quantized import EDGE_SPACES, ExitStage, QuantizedExitSpace, QuantizedNetwork, SegmentWork, edge_space
from .workload import Layer, Stage, Unit, Workload

SPACES = {"attentivenas": attentivenas_space, "mini": mini_space}
"""Built-in backbone spaces by name."""


def space_by_name(name: str) -> MBConvSpace:
    """A built-in space, such as ``mini``, or one with heads of another width, such as ``mini-head16``.

    Raises:
        SpaceError: no space of that name.
    """
    base, _, width = name.partition("-head")
    if base not in SPACES or (name != base and not width.isdecimal()):
        raise SpaceError(
            f"no space '{name}'; known: {sorted(SPACES)}, each also with heads of another width, e.g. 'mini-head16'"
        )
    space = SPACES[base]()
    return space if name == base else space.with_head_width(int(width))


__all__ = [
    "CLOCK_TABLES", "EDGE_SPACES", "PINNED", "SPACES", "Backbone", "BackboneSpace", "ClockDomain", "ClockTable",
    "ExitStage", "Exits", "IntArray", "Layer", "MBConvSpace", "QuantizedExitSpace", "QuantizedNetwork",
    "SegmentWork", "Setting", "Stage", "SwitchingCost", "Unit", "Variable", "Workload", "attentivenas_space",
    "clock_table", "edge_space", "exits_from_heads", "genome_from_values", "mini_space", "space_by_name",
]  # fmt: skip
