"""How far a design lies from what predictors were trained on, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..datasets.records import CostRecord
from ..spaces import Backbone, ClockTable, MBConvSpace, Setting
from .assembly import Assembly

if TYPE_CHECKING:
    from ..search.designs import Design

_N_NAMED = 3  # genes that a sentence names


def distance_sentences(
    parts: Assembly, design: Design, rows: Sequence[CostRecord], *, backbone_measured: bool
) -> tuple[str, ...]:
    """Whether a design is inside what was measured, by its network and by its clocks.

    Args:
        rows: valid cost rows that the predictors are trained on; at least one.
        backbone_measured: whether the backbone's accuracy was.
    """
    network = _network_sentence(parts.space, design.backbone, rows, backbone_measured)
    return (network, _clock_sentence(parts.table, design.setting, [row.actual for row in rows]))


def _network_sentence(
    space: MBConvSpace, backbone: Backbone, rows: Sequence[CostRecord], backbone_measured: bool
) -> str:
    known = list(dict.fromkeys(row.backbone for row in rows))
    if backbone in known:
        also = "accuracy and costs" if backbone_measured else "costs"
        return f"network: measured itself ({also})"
    genomes = np.array([space.encode(other) for other in known])
    own = np.asarray(space.encode(backbone))
    nearest = int((genomes != own).sum(axis=1).min())
    outside = []
    for i, (variable, index) in enumerate(zip(space.variables, own, strict=True)):
        seen = [variable.choices[int(j)] for j in np.unique(genomes[:, i])]
        value = variable.choices[int(index)]
        if not min(seen) <= value <= max(seen):
            outside.append(f"{variable.name} = {value} (measured: {min(seen)} .. {max(seen)})")
    near = f"the nearest of {len(known)} measured backbones differs in {nearest} of {len(own)} genes"
    if not outside:
        return f"network: not measured, but every gene lies between measured ones; {near}"
    shown = ", ".join(outside[:_N_NAMED]) + (
        f" and {len(outside) - _N_NAMED} more" if len(outside) > _N_NAMED else ""
    )
    return f"network: EXTRAPOLATED, beyond what was measured in {shown}; {near}"


def _clock_sentence(table: ClockTable, setting: Setting, measured: Sequence[Setting]) -> str:
    if not table.domains:
        return "clocks: not controlled"
    outside = []
    for domain in table.domains:
        seen = [one.hz(domain.name) for one in measured]
        hz = setting.hz(domain.name)
        if not min(seen) <= hz <= max(seen):
            span = f"{min(seen) / 1e6:g} .. {max(seen) / 1e6:g}"
            outside.append(f"{domain.name} = {hz / 1e6:g} MHz (measured: {span})")
    if outside:
        return f"clocks: EXTRAPOLATED, beyond what was measured in {', '.join(outside)}"
    n = sum(one == setting for one in measured)
    return (
        f"clocks: measured in {n} rows" if n else "clocks: not measured, but each lies between measured ones"
    )
