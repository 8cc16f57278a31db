"""The inner engine: exits and clocks for given backbones.

Three engines stand behind one interface.  :class:`Exhaustive` computes every choice and is
exact.  :class:`ArrayNSGA2` is NSGA-II (Deb et al., 2002) as plain array code over all
backbones in lockstep.  :class:`PymooNSGA2` runs pymoo's NSGA-II, an independent implementation.
What an engine finds on a backbone depends on the backbone, its tables and the seed, not on
the other backbones in the call.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .constraints import NO_CONSTRAINTS, Constraints
from .objectives import Expected, Objective, all_masks, evaluate
from .ranking import best_first, front_indices
from .tables import FloatArray, Tables

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

_CHUNK_VALUES = 1 << 21
"""Candidates whose objectives are held at once: 16 MB per objective."""

MAX_EXHAUSTIVE_POSITIONS = 16
"""Beyond this many positions the samples left after every choice of exits (2^16 x 10,000 bits) would
need more than 300 MB."""


@dataclass(frozen=True)
class InnerFront:
    """Non-dominated exits and settings on one backbone.

    Attributes:
        masks: (q, P) exits in use, False where padded.
        settings: (q,) index into the clock table.
        objectives: (q, m), minimised, ascending in the first.
        n_evaluated: candidates looked at.
        violation: (q,) of the constraints; all 0 if anything that meets them was found, else the least found.
    """

    masks: BoolArray
    settings: IntArray
    objectives: FloatArray
    n_evaluated: int
    violation: FloatArray


class InnerEngine(Protocol):
    """Finds the front of every backbone in the tables."""

    def run(
        self, tables: Tables, objective: Objective, seed: int, constraints: Constraints = NO_CONSTRAINTS
    ) -> tuple[InnerFront, ...]: ...


def violations(
    constraints: Constraints, tables: Tables, backbone: IntArray, masks: BoolArray, settings: IntArray
) -> FloatArray:
    """(q,) how far candidates miss the constraints, as expected under the controller; see ``evaluate``."""
    if not constraints.any:
        return np.zeros(len(settings))
    expected = evaluate(Expected(with_latency=True), tables, backbone, masks, settings)
    energy_mj = expected[:, 1] if tables.has_energy else np.full(len(expected), np.nan)
    return constraints.violation(1.0 - expected[:, 0], energy_mj, expected[:, -1], masks.sum(axis=1))


def _front(
    masks: BoolArray, settings: IntArray, points: FloatArray, violation: FloatArray, n_evaluated: int
) -> InnerFront:
    least = np.flatnonzero(violation <= violation.min(initial=np.inf))
    rows = least[front_indices(points[least])]
    rows = rows[np.lexsort(points[rows].T[::-1])]
    return InnerFront(masks[rows], settings[rows], points[rows], n_evaluated, violation[rows])


def n_choices(tables: Tables, backbone: int) -> int:
    """Number of (exits, setting) choices on one backbone: 2^p * F."""
    return (1 << int(tables.n_positions[backbone])) * tables.n_settings


@dataclass(frozen=True)
class Exhaustive:
    """Every choice of exits and setting: exact, and cheap up to about 2^16 choices of exits."""

    def run(
        self, tables: Tables, objective: Objective, seed: int = 0, constraints: Constraints = NO_CONSTRAINTS
    ) -> tuple[InnerFront, ...]:
        """Exact fronts; the seed has no effect.

        Raises:
            ConfigError: a backbone with more than ``MAX_EXHAUSTIVE_POSITIONS`` exit positions.
        """
        constraints.check_energy(tables.has_energy)
        if constraints.any:
            return tuple(
                self._constrained(tables, objective, b, constraints) for b in range(len(tables.backbones))
            )
        return tuple(self._one(tables, objective, b) for b in range(len(tables.backbones)))

    def _constrained(
        self, tables: Tables, objective: Objective, backbone: int, constraints: Constraints
    ) -> InnerFront:
        p = int(tables.n_positions[backbone])
        choices = all_masks(p)[int(objective.needs_exit) :]
        masks = np.zeros((len(choices), tables.max_positions), dtype=bool)
        masks[:, :p] = choices
        masks = np.repeat(masks, tables.n_settings, axis=0)
        settings = np.tile(np.arange(tables.n_settings, dtype=np.int64), len(choices))
        rows = np.full(len(settings), backbone)
        points = evaluate(objective, tables, rows, masks, settings)
        missed = violations(constraints, tables, rows, masks, settings)
        return _front(masks, settings, points, missed, n_choices(tables, backbone))

    def _one(self, tables: Tables, objective: Objective, backbone: int) -> InnerFront:
        p = int(tables.n_positions[backbone])
        if p > MAX_EXHAUSTIVE_POSITIONS:
            raise ConfigError(
                f"backbone {tables.backbones[backbone].arch_id} has {p} exit positions; exhaustive search stops at "
                f"{MAX_EXHAUSTIVE_POSITIONS}. Search it by NSGA-II (Hybrid does so by itself)."
            )
        terms = objective.enumerate_terms(tables, backbone)
        masks = all_masks(p)
        costs = [
            (term.segment[backbone, [*range(p), -1]], term.head[backbone, :p], term.scale[backbone])
            for term in objective.cost_terms(tables)
        ]
        worthwhile = _undominated_settings(np.concatenate([np.concatenate(cost[:2]) for cost in costs]))
        costs = [(segment[:, worthwhile], head[:, worthwhile], scale) for segment, head, scale in costs]
        first, step = int(objective.needs_exit), max(1, _CHUNK_VALUES // len(worthwhile))
        kept: list[tuple[IntArray, IntArray, FloatArray]] = []
        for start in range(first, len(masks), step):
            rows = np.arange(start, min(start + step, len(masks)))
            weight = terms.weight[rows]
            values = [
                (_mix(weight, segment) + _mix(weight[:, :-1] * masks[rows], head)) / scale
                for segment, head, scale in costs
            ]
            kept.append(_chunk_front(rows, terms.loss[rows], values))
        row = np.concatenate([part[0] for part in kept])
        setting = worthwhile[np.concatenate([part[1] for part in kept])]
        points = np.concatenate([part[2] for part in kept])
        padded = np.zeros((len(row), tables.max_positions), dtype=bool)
        padded[:, :p] = masks[row]
        # Products of matrices round differently from the sums of `evaluate`; report what it reports.
        exact = (
            evaluate(objective, tables, np.full(len(row), backbone), padded, setting) if len(row) else points
        )
        return _front(padded, setting, exact, np.zeros(len(exact)), n_choices(tables, backbone))


def _mix(weight: FloatArray, cost: FloatArray) -> FloatArray:
    """(q, j) x (j, F) product without BLAS, whose rounding may depend on the number of threads."""
    return np.asarray(np.einsum("qj,jf->qf", weight, cost))


def _undominated_settings(stage_costs: FloatArray) -> IntArray:
    """Settings that some mix of stages may want, ascending.

    Costs are mixes of stage costs with weights that are never negative, so a setting at which
    every stage costs at least as much as at another can be left out; of equals the first stays.

    Args:
        stage_costs: (rows, F), one row per stage and cost.
    """
    # (f, g): g costs no more than f everywhere.
    no_dearer = np.all(stage_costs[:, None, :] <= stage_costs[:, :, None], axis=0)
    before = np.tri(stage_costs.shape[1], k=-1, dtype=bool)
    dominated = np.any(no_dearer & (~no_dearer.T | before), axis=1)
    return np.flatnonzero(~dominated).astype(np.int64)


def _chunk_front(
    rows: IntArray, loss: FloatArray, values: list[FloatArray]
) -> tuple[IntArray, IntArray, FloatArray]:
    """Non-dominated (row, setting, point) of a chunk; ``values`` are (rows, F) per cost."""
    if len(values) == 1:
        # With one cost only the cheapest setting of each choice of exits can be on the front.
        settings = np.argmin(values[0], axis=1)
        points = np.stack([loss, values[0][np.arange(len(rows)), settings]], axis=1)
        keep = front_indices(points)
        return rows[keep], settings[keep].astype(np.int64), points[keep]
    n_settings = values[0].shape[1]
    points = np.stack([np.repeat(loss, n_settings), *(v.ravel() for v in values)], axis=1)
    keep = front_indices(points)
    return rows[keep // n_settings], keep % n_settings, points[keep]


@dataclass(frozen=True)
class ArrayNSGA2:
    """NSGA-II over (exits, setting), all backbones in lockstep.

    Attributes:
        population: candidates per generation and backbone.
        generations: including the first, random one; ``population * generations`` candidates
            are evaluated per backbone (fewer only if a backbone offers fewer).
    """

    population: int
    generations: int

    def run(
        self, tables: Tables, objective: Objective, seed: int, constraints: Constraints = NO_CONSTRAINTS
    ) -> tuple[InnerFront, ...]:
        """Fronts of everything that was evaluated."""
        constraints.check_energy(tables.has_energy)
        if not tables.backbones:
            return ()
        lines = [_Line(tables, b, objective.needs_exit, seed) for b in range(len(tables.backbones))]
        for generation in range(self.generations):
            for line in lines:
                line.propose(self.population, first=generation == 0)
            backbone = np.concatenate([np.full(len(line.new_settings), line.backbone) for line in lines])
            if not len(backbone):
                break
            masks = np.concatenate([line.new_masks for line in lines])
            settings = np.concatenate([line.new_settings for line in lines])
            points = evaluate(objective, tables, backbone, masks, settings)
            missed = violations(constraints, tables, backbone, masks, settings)
            for line in lines:
                own = backbone == line.backbone
                line.accept(points[own], missed[own], self.population)
        return tuple(
            _front(line.masks, line.settings, line.points, line.violation, len(line.masks)) for line in lines
        )


class _Line:
    """The NSGA-II of one backbone: everything evaluated so far, and the current parents."""

    def __init__(self, tables: Tables, backbone: int, needs_exit: bool, seed: int) -> None:
        self.backbone = backbone
        self._p = int(tables.n_positions[backbone])
        self._n_settings, self._default = tables.n_settings, tables.default_setting
        self._needs_exit = needs_exit
        self._n_choices = n_choices(tables, backbone) - (self._n_settings if needs_exit else 0)
        identity = zlib.crc32(tables.backbones[backbone].arch_id.encode())
        self._rng = np.random.default_rng([seed, identity])
        self._seen: set[bytes] = set()
        width = tables.max_positions
        self.masks = np.zeros((0, width), dtype=bool)
        self.settings = np.zeros(0, dtype=np.int64)
        self.points, self.violation = np.zeros((0, 0)), np.zeros(0)
        self.new_masks, self.new_settings = self.masks, self.settings
        self._parents = np.zeros(0, dtype=np.int64)

    def propose(self, n: int, *, first: bool) -> None:
        """Fill ``new_*`` with up to ``n`` candidates never seen before."""
        n = min(n, self._n_choices - len(self._seen))
        masks, settings = [self.masks[:0]], [self.settings[:0]]
        found, tries = 0, 0
        while found < n:
            # Variation that keeps hitting known candidates gives way to random draws.
            draw = self._random if first or tries > 4 else self._vary
            fresh_masks, fresh_settings = draw(2 * (n - found))
            if first and not tries and not self._needs_exit:
                fresh_masks[0], fresh_settings[0] = False, self._default
            keep = self._fresh_rows(fresh_masks, fresh_settings)[: n - found]
            for row in keep:
                self._seen.add(_key(fresh_masks[row], int(fresh_settings[row])))
            masks.append(fresh_masks[keep])
            settings.append(fresh_settings[keep])
            found, tries = found + len(keep), tries + 1
        self.new_masks, self.new_settings = np.concatenate(masks), np.concatenate(settings)

    def accept(self, points: FloatArray, violation: FloatArray, n_parents: int) -> None:
        """Take the new candidates in and choose the next parents among parents and children."""
        children = np.arange(len(self.masks), len(self.masks) + len(points))
        self.masks = np.concatenate([self.masks, self.new_masks])
        self.settings = np.concatenate([self.settings, self.new_settings])
        self.points = np.concatenate([self.points, points]) if len(self.points) else points
        self.violation = np.concatenate([self.violation, violation])
        pool = np.concatenate([self._parents, children])
        self._parents = pool[best_first(self.points[pool], self.violation[pool])[:n_parents]]

    def _fresh_rows(self, masks: BoolArray, settings: IntArray) -> list[int]:
        first_row = {_key(masks[row], int(settings[row])): row for row in reversed(range(len(masks)))}
        return sorted(row for key, row in first_row.items() if key not in self._seen)

    def _random(self, n: int) -> tuple[BoolArray, IntArray]:
        rng, p = self._rng, self._p
        masks = np.zeros((n, self.masks.shape[1]), dtype=bool)
        # A density per candidate, so that few and many exits are both common.
        masks[:, :p] = rng.random((n, p)) < rng.random((n, 1))
        return self._repaired(masks), rng.integers(0, self._n_settings, n)

    def _vary(self, n: int) -> tuple[BoolArray, IntArray]:
        """Binary tournament, uniform crossover, bit flips; settings inherit, step or reset."""
        rng, p = self._rng, self._p
        # Parents are in order of merit, so the smaller of two places wins a tournament.
        places = rng.integers(0, len(self._parents), (2, 2, n)).min(axis=1)
        mother, father = self._parents[places[0]], self._parents[places[1]]
        masks = np.where(rng.random((n, self.masks.shape[1])) < 0.5, self.masks[mother], self.masks[father])
        masks[:, :p] ^= rng.random((n, p)) < 1.0 / p
        settings = np.where(rng.random(n) < 0.5, self.settings[mother], self.settings[father])
        reset = rng.random(n) < 0.3
        settings = np.where(reset, rng.integers(0, self._n_settings, n), settings)
        return self._repaired(masks), settings

    def _repaired(self, masks: BoolArray) -> BoolArray:
        if self._needs_exit:
            empty = np.flatnonzero(~masks.any(axis=1))
            masks[empty, self._rng.integers(0, self._p, len(empty))] = True
        return masks


def _key(mask: BoolArray, setting: int) -> bytes:
    return mask.tobytes() + setting.to_bytes(4, "little")


@dataclass(frozen=True)
class PymooNSGA2:
    """pymoo's NSGA-II with uniform crossover and polynomial mutation, one run per backbone.

    Slower than :class:`ArrayNSGA2`; for whoever wants the reference implementation or a second opinion.

    Attributes:
        population: candidates per generation and backbone.
        generations: including the first, random one.
    """

    population: int
    generations: int

    def run(
        self, tables: Tables, objective: Objective, seed: int, constraints: Constraints = NO_CONSTRAINTS
    ) -> tuple[InnerFront, ...]:
        """Fronts of the final populations."""
        constraints.check_energy(tables.has_energy)
        return tuple(self._one(tables, objective, seed, b, constraints) for b in range(len(tables.backbones)))

    def _one(
        self, tables: Tables, objective: Objective, seed: int, backbone: int, constraints: Constraints
    ) -> InnerFront:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.ux import UX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling
        from pymoo.optimize import minimize

        p = int(tables.n_positions[backbone])

        def split(genes: NDArray[Any]) -> tuple[BoolArray, IntArray]:
            masks = np.zeros((len(genes), tables.max_positions), dtype=bool)
            masks[:, :p] = genes[:, :p] == 1
            settings = genes[:, p].astype(np.int64)
            if objective.needs_exit:
                # Genes without an exit stand for one exit, at a place that the setting decides.
                empty = np.flatnonzero(~masks.any(axis=1))
                masks[empty, settings[empty] % p] = True
            return masks, settings

        def judged(genes: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
            rows, (masks, settings) = np.full(len(genes), backbone), split(genes)
            points = evaluate(objective, tables, rows, masks, settings)
            return points, violations(constraints, tables, rows, masks, settings)

        class _Choices(Problem):  # type: ignore[misc]
            def _evaluate(self, x: NDArray[Any], out: dict[str, Any], *_: Any, **__: Any) -> None:
                out["F"], missed = judged(x)
                if constraints.any:
                    out["G"] = missed[:, None]

        problem = _Choices(
            n_var=p + 1,
            n_obj=len(objective.columns(tables.has_energy)),
            n_ieq_constr=int(constraints.any),
            xl=np.zeros(p + 1),
            xu=np.append(np.ones(p), tables.n_settings - 1),
            vtype=int,
        )
        algorithm = NSGA2(
            pop_size=self.population,
            sampling=IntegerRandomSampling(),
            crossover=UX(),
            mutation=PM(eta=3.0, vtype=float, repair=RoundingRepair()),
        )
        result = minimize(problem, algorithm, ("n_gen", self.generations), seed=seed, verbose=False)
        genes = np.array([individual.X for individual in result.pop])
        masks, settings = split(genes)
        return _front(masks, settings, *judged(genes), int(result.algorithm.evaluator.n_eval))


@dataclass(frozen=True)
class Hybrid:
    """Exhaustive where a backbone offers at most ``exact_limit`` choices, NSGA-II elsewhere.

    Backbones of more than ``MAX_EXHAUSTIVE_POSITIONS`` exit positions always get NSGA-II.
    """

    exact_limit: int
    nsga2: ArrayNSGA2 | PymooNSGA2

    def run(
        self, tables: Tables, objective: Objective, seed: int, constraints: Constraints = NO_CONSTRAINTS
    ) -> tuple[InnerFront, ...]:
        """Fronts of all backbones, in the tables' order."""
        exact = [
            n_choices(tables, b) <= self.exact_limit and p <= MAX_EXHAUSTIVE_POSITIONS
            for b, p in enumerate(tables.n_positions)
        ]
        if all(exact):
            return Exhaustive().run(tables, objective, seed, constraints)
        large, small = (
            tables.take([b for b, is_small in enumerate(exact) if is_small == wanted])
            for wanted in (False, True)
        )
        searched = iter(self.nsga2.run(large, objective, seed, constraints))
        listed = iter(Exhaustive().run(small, objective, seed, constraints))
        return tuple(next(listed) if is_small else next(searched) for is_small in exact)
