"""Every choice of exits and setting on a backbone: exact, and the reference of the other engines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from .constraints import NO_CONSTRAINTS, Constraints, Extremes
from .ensemble import AnyTables, members_of, summarised
from .evaluation import judged_kinds, limited_kinds
from .fronts import InnerFront, front_of
from .objectives import BoolArray, Expected, IntArray, MaskTerms, Objective, all_masks, listed_costs
from .ranking import front_indices
from .tables import CostKind, FloatArray

_CHUNK_VALUES = 1 << 16
"""Choices whose objectives are computed at once: 0.5 MB per array, which a processor's cache holds."""

MAX_EXHAUSTIVE_POSITIONS = 16
"""Beyond this many positions the samples left after every choice of exits (2^16 x 10,000 bits) would
need more than 300 MB."""


@dataclass(frozen=True)
class Exhaustive:
    """Every choice of exits and setting: exact, and cheap up to about 2^16 choices of exits."""

    def run(
        self,
        tables: AnyTables,
        objective: Objective,
        seed: int = 0,
        constraints: Constraints = NO_CONSTRAINTS,
    ) -> tuple[InnerFront, ...]:
        """Exact fronts; the seed has no effect.

        Raises:
            ConfigError: a backbone with more than ``MAX_EXHAUSTIVE_POSITIONS`` exit positions, or an energy
                limit on a device that counts no energy.
        """
        constraints.check_energy(tables.has_energy)
        return tuple(
            _Listing(tables, objective, constraints, b).front() for b in range(len(tables.backbones))
        )


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Choices that may be on the front: (c,) row of the mask and setting, (c, m) points, (c,) violation."""

    row: IntArray
    setting: IntArray
    points: FloatArray
    violation: FloatArray

    @staticmethod
    def joined(chunks: Sequence[_Chunk]) -> _Chunk:
        names = ("row", "setting", "points", "violation")
        return _Chunk(*(np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in names))

    def taken(self, rows: IntArray) -> _Chunk:
        return _Chunk(self.row[rows], self.setting[rows], self.points[rows], self.violation[rows])

    def best(self) -> _Chunk:
        """The non-dominated ones of those with the least violation."""
        least = np.flatnonzero(self.violation <= self.violation.min(initial=np.inf))
        return self.taken(least[front_indices(self.points[least])])


class _Listing:
    """All choices on one backbone."""

    def __init__(
        self, tables: AnyTables, objective: Objective, constraints: Constraints, backbone: int
    ) -> None:
        p = int(tables.n_positions[backbone])
        if p > MAX_EXHAUSTIVE_POSITIONS:
            raise ConfigError(
                f"backbone {tables.backbones[backbone].arch_id} has {p} exit positions; exhaustive search stops at "
                f"{MAX_EXHAUSTIVE_POSITIONS}. Search it by NSGA-II (Hybrid does so by itself)."
            )
        self._tables, self._objective, self._constraints = tables, objective, constraints
        self._backbone, self._masks = backbone, all_masks(p)
        self._settings = worthwhile_settings(tables, objective, constraints, backbone)
        self._limited = limited_kinds(constraints, tables.has_energy)
        kinds = judged_kinds(objective, constraints, tables.has_energy)
        members = members_of(tables)
        self._costs = [listed_costs(member, kinds, backbone, self._settings) for member in members]
        self._terms = [objective.enumerate_terms(member, backbone) for member in members]
        self._controller = self._terms
        if constraints.any and not isinstance(objective, Expected):
            self._controller = [Expected().enumerate_terms(member, backbone) for member in members]
        self._extremes: list[Extremes] = []

    def front(self) -> InnerFront:
        """The exact front."""
        kept = _Chunk.joined([chunk.best() for chunk in self._chunks()]).best()
        masks = np.zeros((len(kept.row), self._tables.max_positions), dtype=bool)
        masks[:, : self._masks.shape[1]] = self._masks[kept.row]
        n_looked_at = (len(self._masks) - int(self._objective.needs_exit)) * len(self._settings)
        return front_of(
            masks, kept.setting, kept.points, kept.violation,
            n_looked_at, Extremes.merged(self._extremes),
        )  # fmt: skip

    def _chunks(self) -> Iterator[_Chunk]:
        step = max(1, _CHUNK_VALUES // (len(self._settings) * len(self._costs)))
        first = int(self._objective.needs_exit)
        for start in range(first, len(self._masks), step):
            rows = np.arange(start, min(start + step, len(self._masks)))
            shape = (len(rows), len(self._settings))
            exits = np.ascontiguousarray(self._masks[rows].T)[:, :, None]
            values = [
                self._objective.values(*_of(terms, rows), exits, costs)
                for terms, costs in zip(self._terms, self._costs, strict=True)
            ]
            columns = [summarised(self._tables, column) for column in zip(*values, strict=True)]
            violation = np.zeros(shape)
            if self._constraints.any:
                violation[...] = self._violation(rows, exits)
            yield self._worth_keeping(rows, columns, violation)

    def _violation(self, rows: IntArray, exits: BoolArray) -> FloatArray:
        """(c, F) of the constraints, or (c, 1) if none depends on the setting."""
        judged = []
        for terms, costs in zip(self._controller, self._costs, strict=True):
            loss, weight = _of(terms, rows)
            judged.append([loss, *(costs[kind].mix(weight, exits) for kind in self._limited)])
        error, *paid = (summarised(self._tables, column) for column in zip(*judged, strict=True))
        by_kind: dict[CostKind, FloatArray] = dict(zip(self._limited, paid, strict=True))
        unknown = np.full(1, np.nan)
        found = (
            1.0 - error, by_kind.get("energy_mj", unknown), by_kind.get("latency_ms", unknown), exits.sum(axis=0)
        )  # fmt: skip
        self._extremes.append(Extremes.of(*found))
        return self._constraints.violation(*found)

    def _worth_keeping(self, rows: IntArray, columns: list[FloatArray], violation: FloatArray) -> _Chunk:
        shape = violation.shape
        if len(columns) == 1 or (len(columns) == 2 and columns[0].shape[1] == 1):
            # One value that depends on the setting: of each choice of exits only the setting with the least
            # of it can be on the front, among those with the least violation.
            value = np.broadcast_to(columns[-1], shape)
            least = violation <= violation.min(axis=1, keepdims=True)
            settings = np.argmin(np.where(least, value, np.inf), axis=1)[:, None]
            picked = [np.take_along_axis(np.broadcast_to(c, shape), settings, axis=1)[:, 0] for c in columns]
            missed = np.take_along_axis(violation, settings, axis=1)[:, 0]
            return _Chunk(rows, self._settings[settings[:, 0]], np.stack(picked, axis=1), missed)
        least_rows, settings = np.nonzero(violation <= violation.min())
        points = np.stack([np.broadcast_to(c, shape)[least_rows, settings] for c in columns], axis=1)
        return _Chunk(rows[least_rows], self._settings[settings], points, violation[least_rows, settings])


def _of(terms: MaskTerms, rows: IntArray) -> tuple[FloatArray, FloatArray]:
    """Loss (c, 1) and weight (p + 1, c, 1) of some choices of exits."""
    return terms.loss[rows][:, None], np.ascontiguousarray(terms.weight[rows].T)[:, :, None]


def worthwhile_settings(
    tables: AnyTables, objective: Objective, constraints: Constraints, backbone: int
) -> IntArray:
    """Settings that some choice of exits on a backbone may want, ascending.

    Values and limited costs never fall when stages get dearer, so a setting at which every stage costs at
    least as much as at another, in every member of an ensemble, can be left out; of equals the first stays.
    All settings where an objective is not monotone.
    """
    if not objective.monotone:
        return np.arange(tables.n_settings, dtype=np.int64)
    p = int(tables.n_positions[backbone])
    stage_costs = []
    for member in members_of(tables):
        for kind in judged_kinds(objective, constraints, tables.has_energy):
            table = member.by_setting(kind)
            stage_costs += [table.segment[backbone][:, [*range(p), -1]], table.head[backbone][:, :p]]
    return undominated_settings(np.concatenate(stage_costs, axis=1).T)


def undominated_settings(stage_costs: FloatArray) -> IntArray:
    """Settings at which no other one is at most as dear at every stage, ascending; of equals the first.

    Args:
        stage_costs: (rows, F), one row per stage and cost.
    """
    # Whatever dominates a setting precedes it in this order, so that looking back is enough.
    order = np.lexsort(stage_costs[::-1])
    kept, n_kept = np.empty((len(order), len(stage_costs))), 0
    chosen = []
    for setting in order:
        costs = stage_costs[:, setting]
        if not (kept[:n_kept] <= costs).all(axis=1).any():
            kept[n_kept] = costs
            n_kept += 1
            chosen.append(setting)
    return np.sort(np.array(chosen, dtype=np.int64))
