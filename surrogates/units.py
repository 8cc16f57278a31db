"""Rows in a wrong unit: costs too far from what predictors say to be those of a device that has drifted."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..datasets.records import CostRecord
from ..spaces import BackboneSpace, Setting, Stage
from .cost_model import CostModel
from .prediction import FloatArray

SUSPECT_FACTOR = 3.0
"""A session whose rows are on average this many times what was predicted, or this part of it, is suspect."""

SUSPECT_ROW_FACTOR = 30.0
"""The same of single rows, which predictors know less well; units differ by a thousand."""

_CHUNK = 1000  # rows whose stages are predicted at once
_UNITS = {
    "latency": ("ms", {-3: "s", 3: "µs", 6: "ns"}),
    "energy": ("mJ", {-3: "J", 3: "µJ", 6: "nJ", -6: "kJ"}),
}


@dataclass(frozen=True, slots=True)
class Slip:
    """Rows that can hardly be of this device in this unit.

    Attributes:
        session, quantity: whose, and what of them.
        n_rows: how many.
        factor: geometric mean of measured / predicted.
    """

    session: str
    quantity: str
    n_rows: int
    factor: float

    def __str__(self) -> str:
        unit, others = _UNITS[self.quantity]
        power = 3 * round(math.log10(self.factor) / 3)
        near = abs(math.log10(self.factor) - power) < math.log10(SUSPECT_FACTOR)
        guess = f", as if {others[power]} stood where {unit} is expected" if near and power in others else ""
        return f"{self.quantity} of {self.n_rows} rows of {self.session} is {self.factor:.4g} times what was predicted{guess}"


def unit_slips(space: BackboneSpace, model: CostModel, rows: Sequence[CostRecord]) -> tuple[Slip, ...]:
    """What of some rows is suspect, by session; totals are looked at, and sums of stages.

    Args:
        rows: of one target, all usable for training.
    """
    found = []
    for (session, quantity), ratios in sorted(_log_ratios(space, model, rows).items()):
        logs = np.array(ratios)
        far = np.abs(logs) > math.log(SUSPECT_ROW_FACTOR)
        if abs(logs.mean()) > math.log(SUSPECT_FACTOR):
            found.append(Slip(session, quantity, len(logs), float(np.exp(logs.mean()))))
        elif far.any():
            found.append(Slip(session, quantity, int(far.sum()), float(np.exp(logs[far].mean()))))
    return tuple(found)


def _log_ratios(
    space: BackboneSpace, model: CostModel, rows: Sequence[CostRecord]
) -> dict[tuple[str, str], list[float]]:
    """log(measured / predicted) of every row, the further one of its total and what its stages make of it."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for first in range(0, len(rows), _CHUNK):
        chunk = rows[first : first + _CHUNK]
        for row, *predicted in zip(chunk, *_row_medians(space, model, chunk), strict=True):
            for quantity, value in zip(_UNITS, predicted, strict=True):
                measured = list(_measured(row, quantity))
                if measured and math.isfinite(value):
                    logs = [math.log(max(one, 1e-300) / value) for one in measured]
                    found[row.session, quantity].append(max(logs, key=abs))
    return found


def _measured(row: CostRecord, quantity: str) -> Iterator[float]:
    total, *parts = (
        (row.latency_ms, *(stage.latency_ms for stage in row.stages))
        if quantity == "latency"
        else (row.energy_mj, *(stage.energy_mj for stage in row.stages))
    )
    if total is not None:
        yield total.value
    counted = [part.value for part in parts if part is not None]
    if parts and len(counted) == len(parts):
        yield counted[-1] if row.program == "prefix" else sum(counted)


def _row_medians(
    space: BackboneSpace, model: CostModel, rows: Sequence[CostRecord]
) -> tuple[FloatArray, FloatArray]:
    """Predicted latency (n,) in ms and energy (n,) in mJ of whole rows."""
    stages: list[Stage] = []
    settings: list[Setting] = []
    starts: list[int] = []
    for row in rows:
        parts = space.workload(row.backbone, n_classes=row.n_classes).stages([p for p, _ in row.heads])
        starts.append(len(stages))
        stages += parts
        settings += [row.actual] * len(parts)
    latency_ms, energy_mj = model.medians(stages, settings)
    return np.add.reduceat(latency_ms, starts), np.add.reduceat(energy_mj, starts)
