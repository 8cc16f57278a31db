"""What was measured of a design, and with what standard error: to stand beside, or instead of, predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..datasets.records import CostRecord, StageCost, Statistic

if TYPE_CHECKING:
    from ..search.designs import Design


@dataclass(frozen=True)
class MeasuredStages:
    """Measured costs of the stages of a design, in execution order.

    Attributes:
        latency_ms, energy_mj: per stage; energy ``None`` without a counter.
        summed: per stage, whether it is the sum of shorter segments, and not one that was run.
    """

    latency_ms: tuple[Statistic, ...]
    energy_mj: tuple[Statistic, ...] | None
    summed: tuple[bool, ...]


def measured_stages(design: Design, rows: Sequence[CostRecord]) -> MeasuredStages | None:
    """Costs of the stages of a design at its clocks, ``None`` if no row tells them all.

    A network with these exits tells them, and so does one with more: its segments are added up.  The one with the
    fewest exits too many counts, and the latest of those.

    Args:
        rows: valid cost rows, in the order in which they came.
    """
    best: CostRecord | None = None
    for row in rows:
        alike = (row.backbone, row.requested, row.program) == (design.backbone, design.setting, "stages")
        if not (alike and row.stages and set(design.exits.heads) <= set(row.heads)):
            continue
        if best is None or len(row.heads) <= len(best.heads):
            best = row
    return None if best is None else _merged(best.stages, set(design.exits.positions))


def _merged(stages: Sequence[StageCost], positions: set[int]) -> MeasuredStages:
    """Stages of a network with fewer exits."""
    groups: list[list[StageCost]] = [[]]
    for stage in stages:
        if stage.kind == "segment":
            groups[-1].append(stage)
        elif stage.position in positions:
            groups += [[stage], []]
    energies = [[stage.energy_mj for stage in group if stage.energy_mj is not None] for group in groups]
    counted = sum(map(len, energies)) == sum(map(len, groups))
    return MeasuredStages(
        tuple(total([stage.latency_ms for stage in group]) for group in groups),
        tuple(total(group) for group in energies) if counted else None,
        tuple(len(group) > 1 for group in groups),
    )


def total(parts: Sequence[Statistic]) -> Statistic:
    """The sum of measured costs, whose errors are taken as independent."""
    if len(parts) == 1:
        return parts[0]
    error = math.sqrt(sum(part.standard_error**2 for part in parts))
    return Statistic(sum(part.value for part in parts), error, min(part.n for part in parts))


def full_pass(design: Design, rows: Sequence[CostRecord]) -> CostRecord | None:
    """The latest row of exactly this design, ``None`` if there is none."""
    same = [
        row for row in rows
        if (row.backbone, row.heads, row.requested) == (design.backbone, design.exits.heads, design.setting)
        and row.program == "stages"
    ]  # fmt: skip
    return same[-1] if same else None
