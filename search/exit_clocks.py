"""Clocks per exit: another setting after each exit in use, where a change of clocks is worth its cost.

The exits in use cut a backbone into stretches: the blocks since the previous exit in use, and the head of the
next.  Each stretch may run at a setting of its own.  Whenever two neighbouring stretches differ, every sample
that goes on pays for a change of clocks; a sample that ends at another setting than the first stretch's pays
for the change back, before the next inference begins.  So the expected cost of exits x with settings f_1..f_G is

    sum_g reach_g * (cost_g(f_g) + s * [f_g != f_(g-1)]) + sum_g (reach_g - reach_(g+1)) * s * [f_g != f_1],

where s is the measured cost of a change.  For given exits and one cost (or one weighting of energy and latency)
dynamic programming over the stretches, for each first setting, finds the best settings exactly.

Shapes: q candidates, P positions, F settings, G stretches, m objectives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ConfigError
from ..spaces import SwitchingCost
from .constraints import NO_CONSTRAINTS, Constraints
from .ensemble import AnyTables, TablesEnsemble
from .evaluation import judged_kinds
from .exhaustive import undominated_settings, worthwhile_settings
from .fronts import ExitClockFront, InnerEngine, InnerFront
from .objectives import BoolArray, Expected, IntArray, Objective, all_masks
from .ranking import best_first, front_indices
from .tables import CostKind, FloatArray, Tables

_LISTED_POSITIONS = 8
"""Up to so many positions all choices of exits are tried."""
_ROUNDS = 4
"""Rounds in which neighbours of the front's exits are tried where there are more positions."""
_SPREAD = 32
"""Members of the front, the least crowded, whose neighbours are tried in a round."""
_WEIGHTS = tuple(float(w) for w in np.linspace(0.0, 1.0, 9))
"""Weightings of energy against latency, where both count."""
_CHUNK_VALUES = 1 << 20


@dataclass(frozen=True)
class ClocksPerExit:
    """An engine that finds, besides another engine's front, the one with a setting for each stretch.

    For one cost, settings are exact for given exits; where energy and latency both count, they are so for nine
    weightings of the two.  Exits are all choices up to 8 positions; beyond, those of the single-setting front
    and, in four rounds, neighbours of those that are best by then.  A design with one setting throughout is a
    special case, so the front is never worse than the single-setting one.

    Attributes:
        engine: finds the front with one setting per design.
        switching: measured cost of a change of clocks; 0 for both is the bound that free changes would reach.
    """

    engine: InnerEngine
    switching: SwitchingCost

    def run(
        self, tables: AnyTables, objective: Objective, seed: int, constraints: Constraints = NO_CONSTRAINTS
    ) -> tuple[InnerFront, ...]:
        """The engine's fronts, each with ``per_exit``.

        Raises:
            ConfigError: an objective other than ``expected``, or an ensemble of tables.
        """
        if not isinstance(objective, Expected):
            raise ConfigError(f"clocks per exit need the objective 'expected', not '{objective.name}'")
        if isinstance(tables, TablesEnsemble):
            raise ConfigError("clocks per exit are chosen on one set of tables; search on the mean")
        fronts = self.engine.run(tables, objective, seed, constraints)
        return tuple(
            replace(
                front, per_exit=_Stretches(tables, b, objective, constraints, self.switching).front(front)
            )
            for b, front in enumerate(fronts)
        )


def exit_clock_costs(
    tables: Tables,
    kinds: Iterable[CostKind],
    backbone: int,
    masks: BoolArray,
    settings: IntArray,
    switching: SwitchingCost,
) -> tuple[FloatArray, dict[CostKind, FloatArray]]:
    """Expected error and costs of q candidates with a setting per position.

    Args:
        masks: (q, P) exits in use.
        settings: (q, P + 1) setting of each segment and of the head after it; of no meaning where padded.

    Returns:
        (q,) error, and (q,) per kind of cost, changes of clocks included.
    """
    terms = Expected().mask_terms(tables, np.full(len(masks), backbone), masks)
    p = int(tables.n_positions[backbone])
    columns = [*range(p), tables.max_positions]
    reach, at = terms.weight[:, columns], settings[:, columns]
    # Share of samples that change clocks: on the way, and back before the next inference.
    going_on = reach[:, 1:] * (at[:, 1:] != at[:, :-1])
    leaving = np.concatenate([reach[:, :-1] - reach[:, 1:], reach[:, -1:]], axis=1)
    changes = np.cumsum(np.concatenate([going_on, leaving * (at != at[:, :1])], axis=1), axis=1)[:, -1]
    costs: dict[CostKind, FloatArray] = {}
    for kind in kinds:
        table = tables.by_setting(kind)
        total = getattr(switching, kind) * changes
        for j, column in enumerate(columns):
            total = total + reach[:, j] * table.segment[backbone, at[:, j], column]
            if j < p:
                total = total + reach[:, j] * masks[:, j] * table.head[backbone, at[:, j], j]
        costs[kind] = total
    return terms.loss, costs


@dataclass(frozen=True, slots=True)
class _WeightedStages:
    """Stage costs under a weighting of energy and latency.

    Attributes:
        settings: (f,) settings that are worth considering.
        segment, head: (p + 1, f) and (p, f).
        change: of one change of clocks.
    """

    settings: IntArray
    segment: FloatArray
    head: FloatArray
    change: float


class _Stretches:
    """All that is tried on one backbone."""

    def __init__(
        self,
        tables: Tables,
        backbone: int,
        objective: Expected,
        constraints: Constraints,
        switching: SwitchingCost,
    ) -> None:
        self._tables, self._backbone, self._constraints = tables, backbone, constraints
        self._switching = switching
        self._own = objective.cost_kinds(tables.has_energy)
        self._kinds = judged_kinds(objective, constraints, tables.has_energy)
        # A setting that no stage wants is not wanted here either: another one in its place changes no more often.
        self._settings = worthwhile_settings(tables, objective, constraints, backbone)
        self._p = int(tables.n_positions[backbone])
        self._tried: set[bytes] = set()
        width = tables.max_positions
        self._masks = np.zeros((0, width), dtype=bool)
        self._at = np.zeros((0, width + 1), dtype=np.int64)
        self._points = np.zeros((0, 1 + len(self._own)))
        self._violation = np.zeros(0)

    def front(self, single: InnerFront) -> ExitClockFront:
        """The front of everything tried, which holds the single-setting front."""
        at = np.repeat(single.settings[:, None], single.masks.shape[1] + 1, axis=1)
        self._take(single.masks, at)
        if self._p <= _LISTED_POSITIONS:
            listed = np.zeros((1 << self._p, single.masks.shape[1]), dtype=bool)
            listed[:, : self._p] = all_masks(self._p)
            self._try(listed)
        else:
            self._try(single.masks)
            for _ in range(_ROUNDS):
                best = self._best()
                spread = best[best_first(self._points[best])[:_SPREAD]]
                if not self._try(self._neighbours(self._masks[spread])):
                    break
        rows = self._best()
        rows = rows[np.lexsort(self._points[rows].T[::-1])]
        at = self._at[rows].copy()
        at[:, self._p : -1] = -1
        return ExitClockFront(self._masks[rows], at, self._points[rows], self._violation[rows])

    def _best(self) -> IntArray:
        least = np.flatnonzero(self._violation <= self._violation.min())
        return least[front_indices(self._points[least])]

    def _neighbours(self, masks: BoolArray) -> BoolArray:
        """Exits that differ in one position, or in which one exit stands one position off."""
        found = [masks ^ (np.arange(masks.shape[1]) == j) for j in range(self._p)]
        for j in range(self._p - 1):
            swapped = masks.copy()
            swapped[:, [j, j + 1]] = masks[:, [j + 1, j]]
            found.append(swapped)
        return np.concatenate(found)

    def _try(self, masks: BoolArray) -> int:
        """Find the best settings of exits that were not tried yet; says how many those were."""
        fresh = []
        for row, mask in enumerate(masks):
            if mask.tobytes() not in self._tried:
                self._tried.add(mask.tobytes())
                fresh.append(row)
        masks = masks[fresh]
        if not len(masks):
            return 0
        terms = Expected().mask_terms(self._tables, np.full(len(masks), self._backbone), masks)
        for weights in self._weightings():
            stages = self._weighted(weights)
            step = max(1, _CHUNK_VALUES // len(stages.settings) ** 2)
            for start in range(0, len(masks), step):
                rows = slice(start, start + step)
                self._take(masks[rows], self._best_settings(masks[rows], terms.weight[rows], stages))
        return len(masks)

    def _weightings(self) -> list[dict[CostKind, float]]:
        """Factors per kind of cost, each kind in units of the whole backbone's."""
        if len(self._kinds) == 1:
            return [{self._kinds[0]: 1.0}]
        alone = {kind: float(self._tables.by_setting(kind).alone[self._backbone]) for kind in self._kinds}
        first, second = self._kinds
        return [{first: w / alone[first], second: (1.0 - w) / alone[second]} for w in _WEIGHTS]

    def _take(self, masks: BoolArray, at: IntArray) -> None:
        """Judge designs and keep them."""
        error, costs = exit_clock_costs(self._tables, self._kinds, self._backbone, masks, at, self._switching)
        unknown = np.full(len(masks), np.nan)
        violation = self._constraints.violation(
            1.0 - error, costs.get("energy_mj", unknown), costs.get("latency_ms", unknown), masks.sum(axis=1)
        )
        points = np.stack([error, *(costs[kind] for kind in self._own)], axis=1)
        self._masks, self._at = np.concatenate([self._masks, masks]), np.concatenate([self._at, at])
        self._points = np.concatenate([self._points, points])
        self._violation = np.concatenate([self._violation, violation])

    def _weighted(self, weights: Mapping[CostKind, float]) -> _WeightedStages:
        """Stage costs under a weighting, at the few settings that some stretch may want under it."""
        segment, head = np.zeros((self._p + 1, len(self._settings))), np.zeros((self._p, len(self._settings)))
        change = 0.0
        for kind, weight in weights.items():
            table = self._tables.by_setting(kind)
            columns = [*range(self._p), self._tables.max_positions]
            segment += weight * table.segment[self._backbone][self._settings][:, columns].T
            head += weight * table.head[self._backbone][self._settings][:, : self._p].T
            change += weight * getattr(self._switching, kind)
        wanted = undominated_settings(np.concatenate([segment, head]))
        return _WeightedStages(self._settings[wanted], segment[:, wanted], head[:, wanted], change)

    def _best_settings(self, masks: BoolArray, weight: FloatArray, stages: _WeightedStages) -> IntArray:
        """(q, P + 1) settings of least weighted cost for given exits.

        Args:
            weight: (q, P + 1) share of samples that reach each position.
        """
        q, F = len(masks), len(stages.settings)
        passed = np.concatenate([np.zeros((q, 1), dtype=np.int64), np.cumsum(masks, axis=1)], axis=1)
        cost_of, reach = self._stretches(masks, weight, stages, passed)
        n_stretches, change = len(cost_of), stages.change
        other = ~np.eye(F, dtype=bool)
        # (q, first setting, present setting): the least cost so far.
        cost = np.where(other, np.inf, cost_of[0][:, :, None])
        came_from: list[IntArray] = []
        for g in range(1, n_stretches):
            cheapest = np.argmin(cost, axis=2)
            switched = np.take_along_axis(cost, cheapest[:, :, None], axis=2)
            switched = switched + (reach[g] * change)[:, None, None]
            # Stretches that a choice of exits does not have cost nothing and change nothing.
            present = (g <= passed[:, -1])[:, None, None]
            move = present & (switched < cost)
            came_from.append(np.where(move, cheapest[:, :, None], np.arange(F)))
            back = ((reach[g] - reach[g + 1]) * change)[:, None, None] * other
            cost = np.where(move, switched, cost) + cost_of[g][:, None, :] + back
        first, now = np.divmod(np.argmin(cost.reshape(q, -1), axis=1), F)
        chosen = np.zeros((n_stretches, q), dtype=np.int64)
        chosen[-1] = now
        for g in range(n_stretches - 1, 0, -1):
            chosen[g - 1] = came_from[g - 1][np.arange(q), first, chosen[g]]
        return np.asarray(stages.settings[chosen[passed, np.arange(q)[:, None]]])

    def _stretches(
        self, masks: BoolArray, weight: FloatArray, stages: _WeightedStages, passed: IntArray
    ) -> tuple[FloatArray, FloatArray]:
        """(G, q, F) cost of each stretch, and (G + 1, q) share of samples that reach it, 0 beyond the last."""
        q, n_stretches = len(masks), int(passed[:, -1].max()) + 1
        costs = np.zeros((n_stretches, q, len(stages.settings)))
        reach = np.zeros((n_stretches + 1, q))
        rows = np.arange(q)
        for j, column in enumerate([*range(self._p), self._tables.max_positions]):
            stage = np.broadcast_to(stages.segment[j], (q, len(stages.settings)))
            if j < self._p:
                stage = stage + masks[:, j, None] * stages.head[j]
            costs[passed[:, column], rows] += weight[:, column, None] * stage
            reach[passed[:, column], rows] = weight[:, column]
        return costs, reach
