"""How far a design lies from what predictors were trained on, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..datasets.records import CostRecord
from ..spaces import Backbone, ClockTable, MBConvSpace
from .assembly import Assembly

if TYPE_CHECKING:
    from ..search.designs import Design

_N_NAMED = 3  # genes that a sentence names


def distance_sentences(
    parts: Assembly, design: Design, rows: Sequence[CostRecord], *, backbone_measured: bool
) -> tuple[str, ...]:
    """Whether a design is inside what was measured, by its network, its exits and its clocks.

    Args:
        rows: valid cost rows that the predictors are trained on; at least one.
        backbone_measured: whether the backbone's accuracy was.
    """
    return (
        _network_sentence(parts.space, design.backbone, rows, backbone_measured),
        _exits_sentence(design, rows),
        _clock_sentence(parts.table, design, rows),
    )


def _network_sentence(
    space: MBConvSpace, backbone: Backbone, rows: Sequence[CostRecord], backbone_measured: bool
) -> str:
    known = list(dict.fromkeys(row.backbone for row in rows))
    if backbone in known:
        also = "accuracy and costs" if backbone_measured else "costs, not accuracy"
        return f"network: this backbone was measured ({also})"
    genomes = np.array([space.encode(other) for other in known])
    own = np.asarray(space.encode(backbone))
    nearest = int((genomes != own).sum(axis=1).min())
    outside = []
    for i, (variable, index) in enumerate(zip(space.variables, own, strict=True)):
        seen = [variable.choices[int(j)] for j in np.unique(genomes[:, i])]
        value = variable.choices[int(index)]
        if not min(seen) <= value <= max(seen):
            outside.append(f"{variable.name} = {value} (measured: {min(seen)} .. {max(seen)})")
    costs, begins = "", "not measured"
    if backbone_measured:
        costs, begins = " costs of", "accuracy measured, costs not"
    near = (
        f"the nearest of {len(known)} backbones with measured costs differs in {nearest} of {len(own)} genes"
    )
    if not outside:
        return f"network: {begins}, but every gene lies between measured ones; {near}"
    shown = ", ".join(outside[:_N_NAMED]) + (
        f" and {len(outside) - _N_NAMED} more" if len(outside) > _N_NAMED else ""
    )
    begins = f"{begins};{costs} EXTRAPOLATED" if backbone_measured else "EXTRAPOLATED"
    return f"network: {begins}, beyond what was measured in {shown}; {near}"


def _exits_sentence(design: Design, rows: Sequence[CostRecord]) -> str:
    own = [row for row in rows if row.backbone == design.backbone]
    if any(row.heads == design.exits.heads for row in own):
        return "exits: this network was measured with these exits"
    if any(set(design.exits.heads) <= set(row.heads) for row in own):
        return (
            "exits: this network was measured with more exits; longer segments cost what its shorter ones do "
            "together"
        )
    seen = {head for row in rows for head in row.heads}
    unseen = [str(position) for position, kind in design.exits.heads if (position, kind) not in seen]
    if unseen:
        return f"exits: no measured network has this exit after block {', '.join(unseen)}"
    whose = "of this backbone" if own else "of other backbones"
    if design.exits.heads:
        return f"exits: not measured together; each one was on some network; rows {whose} have other exits"
    return f"exits: none; rows {whose} have some, and the full pass is the sum of their segments"


def _clock_sentence(table: ClockTable, design: Design, rows: Sequence[CostRecord]) -> str:
    if not table.domains:
        return "clocks: not controlled"
    setting, measured = design.setting, [row.actual for row in rows]
    n = sum(one == setting for one in measured)
    if n:
        own = sum(row.actual == setting and row.backbone == design.backbone for row in rows)
        return f"clocks: measured in {n} rows, {own or 'none'} of them of this backbone"
    outside = []
    for domain in table.domains:
        seen = [one.hz(domain.name) for one in measured]
        hz = setting.hz(domain.name)
        if not min(seen) <= hz <= max(seen):
            span = f"{min(seen) / 1e6:g} .. {max(seen) / 1e6:g}"
            outside.append(f"{domain.name} = {hz / 1e6:g} MHz (measured: {span})")
    known = list(dict.fromkeys(measured))
    names = [domain.name for domain in table.domains]
    logs = np.log([[one.hz(name) for name in names] for one in known])
    point = np.log([setting.hz(name) for name in names])
    nearest = known[int(np.square(logs - point).sum(axis=1).argmin())]
    factors = [
        f"{name} {max(a, b) / min(a, b):.3g}-fold"
        for name in names
        for a, b in [(nearest.hz(name), setting.hz(name))]
        if a != b
    ]
    near = f"the nearest of {len(known)} measured settings is {nearest}, off by {', '.join(factors)}"
    if outside:
        return f"clocks: EXTRAPOLATED, beyond what was measured in {', '.join(outside)}; {near}"
    if not _surrounded(point, logs):
        return f"clocks: EXTRAPOLATED, a combination beyond those that were measured; {near}"
    return f"clocks: not measured, but between measured settings; {near}"


def _surrounded(point: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Whether a point (d,) is a weighted mean of others (n, d): whether it lies in their convex hull."""
    from scipy.optimize import linprog

    # Coordinates relative to the point, so that the tolerance of the solver is one of ratios of clocks.
    conditions = np.vstack([(others - point).T, np.ones(len(others))])
    wanted = np.append(np.zeros(len(point)), 1.0)
    found = linprog(np.zeros(len(others)), A_eq=conditions, b_eq=wanted, bounds=(0, None), method="highs")
    return bool(found.status == 0)
