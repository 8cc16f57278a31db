"""What inner engines answer: the front of exits and settings on a backbone, and how engines are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .constraints import NO_CONSTRAINTS, NOTHING_FOUND, Constraints, Extremes
from .ensemble import AnyTables
from .objectives import BoolArray, IntArray, Objective
from .ranking import front_indices
from .tables import FloatArray


@dataclass(frozen=True)
class ExitClockFront:
    """Non-dominated exits with a setting for each stretch between them, on one backbone.

    Attributes:
        masks: (q, P) exits in use, False where padded.
        settings: (q, P + 1) index into the clock table at which each segment and the head after it run; the
            same from one exit in use to the next, -1 where padded.
        objectives: (q, m), minimised, ascending in the first; changes of clocks are paid.
        violation: (q,) of the constraints.
    """

    masks: BoolArray
    settings: IntArray
    objectives: FloatArray
    violation: FloatArray


@dataclass(frozen=True)
class InnerFront:
    """Non-dominated exits and settings on one backbone.

    Attributes:
        masks: (q, P) exits in use, False where padded.
        settings: (q,) index into the clock table.
        objectives: (q, m), minimised, ascending in the first.
        n_evaluated: candidates looked at; settings that nothing can want are not.
        violation: (q,) of the constraints; all 0 if anything that meets them was found, else the least found.
        extremes: under constraints, the best that was found for each of them by itself.
        per_exit: the front with clocks per exit, where an engine was asked for it.
    """

    masks: BoolArray
    settings: IntArray
    objectives: FloatArray
    n_evaluated: int
    violation: FloatArray
    extremes: Extremes = NOTHING_FOUND
    per_exit: ExitClockFront | None = None


class InnerEngine(Protocol):
    """Finds the front of every backbone in the tables.

    What it finds on a backbone depends on the backbone, its tables and the seed, not on the other backbones
    in the call.
    """

    def run(
        self, tables: AnyTables, objective: Objective, seed: int, constraints: Constraints = NO_CONSTRAINTS
    ) -> tuple[InnerFront, ...]: ...


def front_of(
    masks: BoolArray,
    settings: IntArray,
    points: FloatArray,
    violation: FloatArray,
    n_evaluated: int,
    extremes: Extremes,
) -> InnerFront:
    """The front of evaluated candidates: the non-dominated ones of those with the least violation."""
    least = np.flatnonzero(violation <= violation.min(initial=np.inf))
    rows = least[front_indices(points[least])]
    rows = rows[np.lexsort(points[rows].T[::-1])]
    return InnerFront(masks[rows], settings[rows], points[rows], n_evaluated, violation[rows], extremes)


def n_choices(tables: AnyTables, backbone: int, objective: Objective) -> int:
    """Number of (exits, setting) choices on one backbone that have a value: 2^p * F, less those without exit
    where the objective needs one."""
    masks = (1 << int(tables.n_positions[backbone])) - int(objective.needs_exit)
    return masks * tables.n_settings
