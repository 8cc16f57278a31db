"""NSGA-II over exits and settings as array code, all backbones in lockstep.

Every generation is a handful of operations on arrays (backbones, candidates, positions): tournaments,
crossover, mutation, hashing out what was evaluated before, evaluation, ranks, crowding.  Random numbers come
from one stream per backbone, named by seed and architecture, so that what is found on a backbone does not
depend on its neighbours.

Beyond textbook NSGA-II (Deb et al., 2002) it uses what is known of the problem:

* settings at which every stage is dearer than at another are left out beforehand, the others are ordered and
  the promising ones preferred (:mod:`.setting_choices`);
* the first generation holds the design without exits and those with one exit, at promising settings;
* of two possible mates the one of nearer objectives is taken, for what suits the one end of a front seldom suits
  the other;
* mutation flips exits, shifts one to a neighbouring position, or steps along the settings;
* the front is that of everything evaluated, and nothing is evaluated twice.

Shapes: B backbones, n candidates per backbone, P positions, m objectives.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from .constraints import NO_CONSTRAINTS, Constraints
from .ensemble import AnyTables
from .evaluation import CodeIndex, Evaluator, choice_codes
from .exhaustive import MAX_EXHAUSTIVE_POSITIONS, Exhaustive, worthwhile_settings
from .fronts import InnerFront, front_of, n_choices
from .objectives import BoolArray, IntArray, Objective
from .ranking import constrained_ranks, crowding_distances
from .setting_choices import SettingChoices
from .tables import FloatArray

_CROSSOVER = 0.5
"""Share of children that take each exit from either parent; the others start as a copy of one."""
_SHIFT = 0.25
"""Share of children of which one exit in use moves to a neighbouring position."""
_KEEP_EXITS = 0.2
"""Share of children whose exits are not mutated; these always change their setting."""
_TRIES = 6
"""Rounds of variation per generation, before random draws fill up what is still missing."""
_RANDOM_TRIES = 60
"""Rounds in all, before what is still missing is taken in order: of the last choices random draws find few."""
_LISTED_AT_ONCE = 1 << 14
"""Choices that are judged at once where all are."""
_EXTRA = 10
"""Random numbers per candidate besides three per position."""


@dataclass(frozen=True)
class ArrayNSGA2:
    """NSGA-II over (exits, setting), all backbones in lockstep.

    A backbone with no more choices than the budget is enumerated instead.

    Attributes:
        population: candidates per generation and backbone.
        generations: including the first one; ``population * generations`` candidates are evaluated per
            backbone (fewer only if a backbone offers fewer).
    """

    population: int
    generations: int

    def run(
        self, tables: AnyTables, objective: Objective, seed: int, constraints: Constraints = NO_CONSTRAINTS
    ) -> tuple[InnerFront, ...]:
        """Fronts of everything that was evaluated.

        Raises:
            ConfigError: an energy limit on a device that counts no energy.
        """
        constraints.check_energy(tables.has_energy)
        settings = [
            worthwhile_settings(tables, objective, constraints, b) for b in range(len(tables.backbones))
        ]
        budget = self.population * self.generations
        fronts: dict[int, InnerFront] = {}
        large: list[int] = []
        for b, own in enumerate(settings):
            if n_choices(tables, b, objective) // tables.n_settings * len(own) > budget:
                large.append(b)
            elif tables.n_positions[b] <= MAX_EXHAUSTIVE_POSITIONS:
                fronts[b] = Exhaustive().run(tables.take([b]), objective, seed, constraints)[0]
            else:
                fronts[b] = _every_choice(Evaluator(tables.take([b]), objective, constraints), own)
        if large:
            evaluator = Evaluator(tables.take(large), objective, constraints)
            search = _Lockstep(
                evaluator, [settings[b] for b in large], seed, self.population, self.generations
            )
            fronts.update(zip(large, search.run(), strict=True))
        return tuple(fronts[b] for b in range(len(tables.backbones)))


def _every_choice(evaluator: Evaluator, settings: IntArray) -> InnerFront:
    """The exact front of the only backbone, of any number of positions, judged block by block."""
    tables = evaluator.tables
    p, per_block = int(tables.n_positions[0]), max(1, _LISTED_AT_ONCE // len(settings))
    fronts: list[InnerFront] = []
    for start in range(int(evaluator.objective.needs_exit), 1 << p, per_block):
        rows = np.arange(start, min(start + per_block, 1 << p), dtype=np.int64)
        masks = np.repeat(_masks_of(rows, p, tables.max_positions), len(settings), axis=0)
        at = np.tile(settings, len(rows))
        judged = evaluator.judge(np.zeros(len(masks), dtype=np.int64), masks, at)
        fronts.append(front_of(masks, at, judged.points, judged.violation, len(masks), evaluator.extremes(0)))
    return front_of(
        np.concatenate([front.masks for front in fronts]),
        np.concatenate([front.settings for front in fronts]),
        np.concatenate([front.objectives for front in fronts]),
        np.concatenate([front.violation for front in fronts]),
        sum(front.n_evaluated for front in fronts),
        evaluator.extremes(0),
    )


def _masks_of(rows: IntArray, n_positions: int, width: int) -> BoolArray:
    """(r, width) choices of exits by their numbers; bit j of a number is position j."""
    masks = np.zeros((len(rows), width), dtype=bool)
    masks[:, :n_positions] = (rows[:, None] >> np.arange(n_positions)) & 1 == 1
    return masks


class _Lockstep:
    """State of all backbones: everything evaluated, and the current parents."""

    def __init__(
        self, evaluator: Evaluator, settings: list[IntArray], seed: int, population: int, generations: int
    ) -> None:
        tables = evaluator.tables
        self._evaluator, self._n, self._generations = evaluator, population, generations
        self._needs_exit = evaluator.objective.needs_exit
        self._p = np.asarray(tables.n_positions, dtype=np.int64)
        B, P, capacity = len(tables.backbones), tables.max_positions, population * generations
        self._choices = SettingChoices(evaluator, settings)
        self._streams = [
            np.random.default_rng([seed, zlib.crc32(backbone.arch_id.encode())])
            for backbone in tables.backbones
        ]
        self._seen = CodeIndex()
        n_objectives = len(evaluator.objective.columns(tables.has_energy))
        self._masks = np.zeros((B, capacity, P), dtype=bool)
        self._steps = np.zeros(
            (B, capacity), dtype=np.int64
        )  # place of the setting among those of the backbone
        self._points = np.zeros((B, capacity, n_objectives))
        self._violation = np.zeros((B, capacity))
        self._count = 0
        self._taken_in_order = np.zeros(B, dtype=np.int64)
        self._parents = np.zeros((B, 0), dtype=np.int64)

    def run(self) -> list[InnerFront]:
        """All generations, and the fronts of everything evaluated."""
        for generation in range(self._generations):
            masks, steps = self._proposed(first=generation == 0)
            self._accept(masks, steps)
        settings = self._choices.settings(self._steps)
        return [
            front_of(
                self._masks[b], settings[b], self._points[b], self._violation[b],
                self._count, self._evaluator.extremes(b),
            )
            for b in range(len(settings))
        ]  # fmt: skip

    def _proposed(self, *, first: bool) -> tuple[BoolArray, IntArray]:
        """(B, n, P) exits and (B, n) steps of n candidates per backbone that were never seen before."""
        B, n, P = len(self._p), self._n, self._masks.shape[2]
        masks, steps = np.zeros((B, n, P), dtype=bool), np.zeros((B, n), dtype=np.int64)
        found, tries = np.zeros(B, dtype=np.int64), 0
        while (open_ := np.flatnonzero(found < n)).size:
            if tries >= _RANDOM_TRIES:
                for b in open_.tolist():
                    masks[b, found[b] :], steps[b, found[b] :] = self._next_in_order(b, n - int(found[b]))
                break
            draws = self._draws(open_)
            if first or tries >= _TRIES:
                new_masks, new_steps = self._random(open_, draws)
            else:
                new_masks, new_steps = self._varied(open_, draws)
            if first and not tries:
                self._plant(open_, new_masks, new_steps)
            self._give_an_exit(open_, new_masks, draws)
            owner = np.repeat(open_, n)
            flat_masks, flat_steps = new_masks.reshape(-1, P), new_steps.ravel()
            codes = choice_codes(owner, flat_masks, flat_steps, B, self._choices.most)
            fresh = np.zeros(len(codes), dtype=bool)
            fresh[np.unique(codes, return_index=True)[1]] = True
            fresh &= self._seen.find(codes) < 0
            # The first fresh ones of each backbone, as many as it lacks.
            nth = np.cumsum(fresh.reshape(len(open_), n), axis=1).ravel() - 1 + found[owner]
            rows = np.flatnonzero(fresh & (nth < n))
            masks[owner[rows], nth[rows]], steps[owner[rows], nth[rows]] = flat_masks[rows], flat_steps[rows]
            self._seen.add(codes[rows])
            found += np.bincount(owner[rows], minlength=B)
            tries += 1
        return masks, steps

    def _next_in_order(self, b: int, n: int) -> tuple[BoolArray, IntArray]:
        """(n, P) exits and (n,) steps: the first of a backbone's choices that were never seen.

        There are as many, for a backbone with no more choices than the budget is not searched but listed.
        """
        p, (B, _, P) = int(self._p[b]), self._masks.shape
        masks, steps = np.zeros((0, P), dtype=bool), np.zeros(0, dtype=np.int64)
        while len(steps) < n:
            numbers = self._taken_in_order[b] + np.arange(n - len(steps), dtype=np.int64)
            self._taken_in_order[b] = numbers[-1] + 1
            rows, at = np.divmod(numbers, self._choices.count(b))
            exits = _masks_of(rows + int(self._needs_exit), p, P)
            codes = choice_codes(np.full(len(at), b), exits, at, B, self._choices.most)
            fresh = self._seen.find(codes) < 0
            self._seen.add(codes[fresh])
            masks, steps = np.concatenate([masks, exits[fresh]]), np.concatenate([steps, at[fresh]])
        return masks, steps

    def _accept(self, masks: BoolArray, steps: IntArray) -> None:
        """Evaluate candidates, and choose the next parents among parents and children."""
        B, n, P = masks.shape
        backbone = np.repeat(np.arange(B), n)
        settings = self._choices.settings(steps).ravel()
        judged = self._evaluator.judge(backbone, masks.reshape(-1, P), settings)
        own = slice(self._count, self._count + n)
        self._masks[:, own], self._steps[:, own] = masks, steps
        self._points[:, own], self._violation[:, own] = (
            judged.points.reshape(B, n, -1),
            judged.violation.reshape(B, n),
        )
        children = np.broadcast_to(np.arange(own.start, own.stop), (B, n))
        pool = np.concatenate([self._parents, children], axis=1)
        points = np.take_along_axis(self._points, pool[:, :, None], axis=1)
        violation = np.take_along_axis(self._violation, pool, axis=1)
        ranks = np.stack([constrained_ranks(*line) for line in zip(points, violation, strict=True)])
        groups = ranks + (1 + ranks.max()) * np.arange(B)[:, None]
        crowding = crowding_distances(points.reshape(-1, points.shape[2]), groups.ravel()).reshape(pool.shape)
        order = np.lexsort((-crowding, ranks, violation), axis=1)[:, :n]
        self._parents = np.take_along_axis(pool, order, axis=1)
        self._count += n

    def _draws(self, open_: IntArray) -> FloatArray:
        """(A, n, 3 P + _EXTRA) uniform numbers, each backbone's from its own stream.

        How many it takes from its stream depends on the backbone alone, not on the padding.
        """
        P = self._masks.shape[2]
        draws = np.ones((len(open_), self._n, 3 * P + _EXTRA))
        for a, b in enumerate(open_):
            p = int(self._p[b])
            own = self._streams[b].random((self._n, 3 * p + _EXTRA))
            draws[a, :, :_EXTRA] = own[:, :_EXTRA]
            for part in range(3):
                start = _EXTRA + part * P
                draws[a, :, start : start + p] = own[:, _EXTRA + part * p : _EXTRA + (part + 1) * p]
        return draws

    def _random(self, open_: IntArray, draws: FloatArray) -> tuple[BoolArray, IntArray]:
        P = self._masks.shape[2]
        # A density per candidate, so that few and many exits are both common.  Padding has draws of 1.
        masks = draws[:, :, _EXTRA : _EXTRA + P] < draws[:, :, 0:1]
        return masks, self._choices.drawn(open_, draws[:, :, 1], draws[:, :, 2])

    def _plant(self, open_: IntArray, masks: BoolArray, steps: IntArray) -> None:
        """Put the design without exits and those with one exit first, as far as a third of the population goes."""
        for a, b in enumerate(open_):
            p, n = int(self._p[b]), max(1, self._n // 3)
            start = int(not self._needs_exit)
            n_single = min(p, n - start)
            masks[a, : start + n_single] = False
            if n_single > 0:
                spread = np.linspace(0, p - 1, n_single).round().astype(np.int64)
                masks[a, start + np.arange(n_single), spread] = True
            steps[a, : start + n_single] = self._choices.spread(int(b), start + n_single)

    def _give_an_exit(self, open_: IntArray, masks: BoolArray, draws: FloatArray) -> None:
        if self._needs_exit:
            line, row = np.nonzero(~masks.any(axis=2))
            masks[line, row, (draws[line, row, 9] * self._p[open_[line]]).astype(np.int64)] = True

    def _varied(self, open_: IntArray, draws: FloatArray) -> tuple[BoolArray, IntArray]:
        """Tournaments, crossover, mutation of exits and settings."""
        P = self._masks.shape[2]
        u, crossed, flipped = draws[:, :, :_EXTRA], *np.split(draws[:, :, _EXTRA : _EXTRA + 2 * P], 2, axis=2)
        line = open_[:, None]
        mother, father = self._mates(open_, u[:, :, :3])
        swap = (crossed < 0.5) & (u[:, :, 3:4] < _CROSSOVER)
        masks = np.where(swap, self._masks[line, father], self._masks[line, mother])
        steps = np.where(u[:, :, 4] < 0.5, self._steps[line, father], self._steps[line, mother])
        kind = u[:, :, 5]
        shift = (kind >= _KEEP_EXITS) & (kind < _KEEP_EXITS + _SHIFT)
        flip = (flipped < 1.0 / self._p[open_][:, None, None]) & (kind >= _KEEP_EXITS + _SHIFT)[:, :, None]
        masks ^= flip
        self._shift(open_, masks, shift, draws[:, :, _EXTRA + 2 * P :], u[:, :, 6])
        return masks, self._choices.moved(open_, steps, kind < _KEEP_EXITS, u[:, :, 7:10])

    def _mates(self, open_: IntArray, u: FloatArray) -> tuple[IntArray, IntArray]:
        """(A, n) twice: winners of binary tournaments, and for each the nearer of another winner and any parent."""
        line, n_parents = open_[:, None], self._parents.shape[1]
        # Parents are in order of merit, so the smaller of two places wins a tournament; 1 - sqrt(1 - u) is
        # distributed like the smaller of two uniform numbers.
        won = ((1.0 - np.sqrt(1.0 - u[:, :, :2])) * n_parents).astype(np.int64)
        mother, first = (self._parents[line, won[:, :, side]] for side in (0, 1))
        second = self._parents[line, (u[:, :, 2] * n_parents).astype(np.int64)]
        points = self._points[line, self._parents[open_]]
        spread = np.maximum(np.ptp(points, axis=1), np.finfo(np.float64).tiny)[:, None, :]
        own = self._points[line, mother]
        to_first, to_second = (
            (((self._points[line, other] - own) / spread) ** 2).sum(axis=2) for other in (first, second)
        )
        return mother, np.where((to_second < to_first) | (first == mother), second, first)

    def _shift(
        self, open_: IntArray, masks: BoolArray, wanted: BoolArray, draws: FloatArray, side: FloatArray
    ) -> None:
        """Move one exit in use, drawn at random, to the position before or after it."""
        line, row = np.nonzero(wanted & masks.any(axis=2))
        at = np.argmax(np.where(masks[line, row], draws[line, row], -1.0), axis=1)
        to = at + np.where(side[line, row] < 0.5, -1, 1)
        inside = (to >= 0) & (to < self._p[open_[line]])
        line, row, at, to = line[inside], row[inside], at[inside], to[inside]
        masks[line, row, at] = False
        masks[line, row, to] = True
