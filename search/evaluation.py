"""Candidates judged: objectives and constraints on tables or ensembles of them, with a memory of exits.

What depends on the exits alone is remembered per backbone, so that a candidate with known exits at another
setting costs a few products.

Shapes: q candidates, k backbones, P positions, F settings, m objectives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .constraints import Constraints, Extremes
from .ensemble import AnyTables, members_of, summarised
from .objectives import BoolArray, Expected, IntArray, MaskTerms, Objective, candidate_costs
from .tables import CostKind, FloatArray

Codes = NDArray[np.uint64]

_MAX_REMEMBERED = 1 << 24
"""Numbers that remembered terms may take: 128 MB.  Beyond them, all are forgotten."""


def choice_codes(
    group: IntArray, masks: BoolArray, settings: IntArray, n_groups: int, n_settings: int
) -> Codes:
    """(q,) one number per (group, exits, setting).

    Exact as long as it fits into 64 bits, which 143 settings and 128 groups leave to 49 positions; mixed
    beyond (then two of a million different candidates share a number with a probability below 1e-7).
    """
    n_positions = masks.shape[1]
    bits = [max(1, (size - 1).bit_length()) for size in (n_settings, n_groups)]
    rest = (group.astype(np.uint64) << np.uint64(bits[0])) | settings.astype(np.uint64)
    words = -(-max(n_positions, 1) // 64)
    padded = np.zeros((len(masks), words * 64), dtype=bool)
    padded[:, :n_positions] = masks
    packed = np.packbits(padded, axis=1, bitorder="little").view("<u8").astype(np.uint64)
    if n_positions + sum(bits) <= 64:
        return np.asarray((rest << np.uint64(n_positions)) | packed[:, 0])
    code = rest
    for word in packed.T:
        code = _mixed(code) ^ word
    return _mixed(code)


def _mixed(code: Codes) -> Codes:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014): a one-to-one map of 64 bits that spreads them."""
    code = (code ^ (code >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    code = (code ^ (code >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(code ^ (code >> np.uint64(31)))


class CodeIndex:
    """A growing set of codes, numbered in the order in which they came: a hash table with open addressing."""

    def __init__(self) -> None:
        self._codes = np.zeros(0, dtype=np.uint64)
        self._slots = np.full(1 << 10, -1, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._codes)

    def find(self, codes: Codes) -> IntArray:
        """(q,) number of each code, -1 where it is not known."""
        found = np.full(len(codes), -1, dtype=np.int64)
        slot, open_rows = self._home(codes), np.arange(len(codes))
        while len(open_rows):
            held = self._slots[slot[open_rows]]
            # An empty slot has the number -1; what stands at -1 is then compared in vain.
            same = (held >= 0) & (self._codes[held] == codes[open_rows]) if len(self._codes) else held >= 0
            found[open_rows[same]] = held[same]
            open_rows = open_rows[(held >= 0) & ~same]
            slot[open_rows] = (slot[open_rows] + 1) & (len(self._slots) - 1)
        return found

    def add(self, codes: Codes) -> None:
        """Take in codes that are all new and all different."""
        start = len(self._codes)
        self._codes = np.concatenate([self._codes, codes])
        if 2 * len(self._codes) > len(self._slots):
            self._slots = np.full(1 << (4 * len(self._codes)).bit_length(), -1, dtype=np.int64)
            start = 0
        self._place(np.arange(start, len(self._codes)))

    def _place(self, numbers: IntArray) -> None:
        slot = self._home(self._codes[numbers])
        while len(numbers):
            free = self._slots[slot] < 0
            self._slots[slot[free]] = numbers[free]
            # Of several that came to one free slot, one has it now.
            lost = self._slots[slot] != numbers
            numbers, slot = numbers[lost], (slot[lost] + 1) & (len(self._slots) - 1)

    def _home(self, codes: Codes) -> IntArray:
        return (_mixed(codes) & np.uint64(len(self._slots) - 1)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Judged:
    """What candidates are worth.

    Attributes:
        points: (q, m), minimised.
        violation: (q,) of the constraints, 0 = feasible.
    """

    points: FloatArray
    violation: FloatArray


class Evaluator:
    """Judges candidates on tables, or on an ensemble of them, under constraints."""

    def __init__(self, tables: AnyTables, objective: Objective, constraints: Constraints) -> None:
        """Raises ``ConfigError`` for an energy limit on a device that counts no energy."""
        constraints.check_energy(tables.has_energy)
        self.tables, self.objective, self.constraints = tables, objective, constraints
        self.kinds = judged_kinds(objective, constraints, tables.has_energy)
        # Constraints ask for the controller's terms; the default objective has the same.
        self._term_sources: list[Objective] = [objective]
        if constraints.any and not isinstance(objective, Expected):
            self._term_sources.append(Expected())
        self._index = CodeIndex()
        self._remembered: list[MaskTerms] = []
        self._extremes = np.tile([-np.inf, np.inf, np.inf, np.inf], (len(tables.backbones), 1))

    def judge(self, backbone: IntArray, masks: BoolArray, settings: IntArray) -> Judged:
        """Judge q candidates.

        Args:
            backbone: (q,) index into the tables.
            masks: (q, P) exits in use; False where padded.
            settings: (q,) index into the clock table.
        """
        values: list[list[FloatArray]] = []
        expected: list[list[FloatArray]] = []
        all_terms = iter(self._terms(backbone, masks))
        exits = np.ascontiguousarray(masks.T)
        for member in members_of(self.tables):
            costs = candidate_costs(member, self.kinds, backbone, settings)
            terms = next(all_terms)
            values.append([*self.objective.values(terms.loss, terms.weight, exits, costs)])
            if self.constraints.any:
                if len(self._term_sources) > 1:
                    terms = next(all_terms)
                expected.append(
                    [terms.loss, *(costs[kind].mix(terms.weight, exits) for kind in _judging(self))]
                )
        points = [summarised(self.tables, column) for column in zip(*values, strict=True)]
        violation = np.zeros(len(settings))
        if self.constraints.any:
            error, *paid = (summarised(self.tables, column) for column in zip(*expected, strict=True))
            violation = self._violation(backbone, masks, error, dict(zip(_judging(self), paid, strict=True)))
        return Judged(np.stack(points, axis=1), violation)

    def extremes(self, backbone: int) -> Extremes:
        """The best found on a backbone for each constraint by itself; NaN without constraints."""
        accuracy, *least = (float(v) if np.isfinite(v) else np.nan for v in self._extremes[backbone])
        return Extremes(accuracy, *least)

    def _violation(
        self, backbone: IntArray, masks: BoolArray, error: FloatArray, paid: dict[CostKind, FloatArray]
    ) -> FloatArray:
        unknown = np.full(len(error), np.nan)
        n_exits = masks.sum(axis=1)
        energy_mj, latency_ms = paid.get("energy_mj", unknown), paid.get("latency_ms", unknown)
        best = self._extremes
        np.fmax.at(best[:, 0], backbone, 1.0 - error)
        for column, found in enumerate((energy_mj, latency_ms, n_exits), start=1):
            np.fmin.at(best[:, column], backbone, found)
        return self.constraints.violation(1.0 - error, energy_mj, latency_ms, n_exits)

    def _terms(self, backbone: IntArray, masks: BoolArray) -> list[MaskTerms]:
        """Per member and source of terms: (q,) loss and, position first, (P + 1, q) weight."""
        codes = choice_codes(backbone, masks, np.zeros_like(backbone), len(self.tables.backbones), 1)
        place = self._index.find(codes)
        fresh = np.flatnonzero(place < 0)
        if len(fresh):
            new, first = np.unique(codes[fresh], return_index=True)
            n_numbers = len(members_of(self.tables)) * len(self._term_sources) * (masks.shape[1] + 2)
            if (len(self._index) + len(new)) * n_numbers > _MAX_REMEMBERED and len(self._index):
                self._index, self._remembered = CodeIndex(), []
                return self._terms(backbone, masks)
            self._remember(backbone[fresh[first]], masks[fresh[first]])
            self._index.add(new)
            place = self._index.find(codes)
        return [MaskTerms(terms.loss[place], terms.weight[place].T) for terms in self._remembered]

    def _remember(self, backbone: IntArray, masks: BoolArray) -> None:
        start, sources = len(self._index), self._term_sources
        for i, member in enumerate(members_of(self.tables)):
            for j, source in enumerate(sources):
                place = i * len(sources) + j
                if len(self._remembered) == place:
                    self._remembered.append(MaskTerms(np.zeros(0), np.zeros((0, masks.shape[1] + 1))))
                new = source.mask_terms(member, backbone, masks)
                self._remembered[place] = _extended(self._remembered[place], start, new)


def _extended(known: MaskTerms, start: int, new: MaskTerms) -> MaskTerms:
    """Terms with new ones from row ``start`` on, in arrays that double when they are full."""
    end, width = start + len(new.loss), new.weight.shape[1]
    if end > len(known.loss):
        room = max(end, 2 * len(known.loss)) - len(known.loss)
        known = MaskTerms(
            np.concatenate([known.loss, np.zeros(room)]),
            np.concatenate([known.weight, np.zeros((room, width))]),
        )
    known.loss[start:end], known.weight[start:end] = new.loss, new.weight
    return known


def judged_kinds(objective: Objective, constraints: Constraints, has_energy: bool) -> tuple[CostKind, ...]:
    """Costs that objectives or constraints depend on."""
    own = objective.cost_kinds(has_energy)
    return own + tuple(kind for kind in limited_kinds(constraints, has_energy) if kind not in own)


def limited_kinds(constraints: Constraints, has_energy: bool) -> tuple[CostKind, ...]:
    """Costs that constraints limit."""
    limited: list[CostKind] = []
    if constraints.max_energy_mj is not None and has_energy:
        limited.append("energy_mj")
    if constraints.max_latency_ms is not None:
        limited.append("latency_ms")
    return tuple(limited)


def _judging(evaluator: Evaluator) -> tuple[CostKind, ...]:
    return limited_kinds(evaluator.constraints, evaluator.tables.has_energy)
