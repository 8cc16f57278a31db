"""The inner engine: exits and clocks for given backbones.

Engines stand behind one interface, :class:`InnerEngine`.  :class:`Exhaustive` computes every choice and is
exact.  :class:`ArrayNSGA2` is NSGA-II (Deb et al., 2002) as array code over all backbones in lockstep.
:class:`PymooNSGA2` runs pymoo's NSGA-II, an independent implementation.  :class:`Hybrid` enumerates what is
small and searches the rest.  All of them keep to constraints: whatever is feasible comes first.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .constraints import NO_CONSTRAINTS, Constraints
from .ensemble import AnyTables
from .evaluation import Evaluator
from .exhaustive import MAX_EXHAUSTIVE_POSITIONS, Exhaustive
from .fronts import InnerEngine, InnerFront, front_of, n_choices
from .lockstep import ArrayNSGA2
from .objectives import BoolArray, IntArray, Objective
from .tables import FloatArray

__all__ = [
    "ArrayNSGA2",
    "Exhaustive",
    "Hybrid",
    "InnerEngine",
    "InnerFront",
    "PymooNSGA2",
    "n_choices",
]


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
        self, tables: AnyTables, objective: Objective, seed: int, constraints: Constraints = NO_CONSTRAINTS
    ) -> tuple[InnerFront, ...]:
        """Fronts of everything that was evaluated."""
        return tuple(
            self._one(Evaluator(tables.take([b]), objective, constraints), seed)
            for b in range(len(tables.backbones))
        )

    def _one(self, evaluator: Evaluator, seed: int) -> InnerFront:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem
        from pymoo.operators.crossover.ux import UX
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import IntegerRandomSampling
        from pymoo.optimize import minimize

        tables, objective, constraints = evaluator.tables, evaluator.objective, evaluator.constraints
        p = int(tables.n_positions[0])

        def split(genes: NDArray[Any]) -> tuple[BoolArray, IntArray]:
            masks = np.zeros((len(genes), tables.max_positions), dtype=bool)
            masks[:, :p] = genes[:, :p] == 1
            settings = genes[:, p].astype(np.int64)
            if objective.needs_exit:
                # Genes without an exit stand for one exit, at a place that the setting decides.
                empty = np.flatnonzero(~masks.any(axis=1))
                masks[empty, settings[empty] % p] = True
            return masks, settings

        seen: list[tuple[BoolArray, IntArray, FloatArray, FloatArray]] = []

        class _Choices(Problem):  # type: ignore[misc]
            def _evaluate(self, x: NDArray[Any], out: dict[str, Any], *_: Any, **__: Any) -> None:
                masks, settings = split(x)
                found = evaluator.judge(np.zeros(len(x), dtype=np.int64), masks, settings)
                seen.append((masks, settings, found.points, found.violation))
                out["F"] = found.points
                if constraints.any:
                    out["G"] = found.violation[:, None]

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
        identity = zlib.crc32(tables.backbones[0].arch_id.encode())
        stream = int(np.random.SeedSequence([seed, identity]).generate_state(1)[0])
        minimize(problem, algorithm, ("n_gen", self.generations), seed=stream, verbose=False)
        masks, settings, points, violation = (np.concatenate(part) for part in zip(*seen, strict=True))
        return front_of(masks, settings, points, violation, len(settings), evaluator.extremes(0))


@dataclass(frozen=True)
class Hybrid:
    """Exhaustive where a backbone offers at most ``exact_limit`` choices, NSGA-II elsewhere.

    Backbones of more than ``MAX_EXHAUSTIVE_POSITIONS`` exit positions always get NSGA-II.
    """

    exact_limit: int
    nsga2: ArrayNSGA2 | PymooNSGA2

    def run(
        self, tables: AnyTables, objective: Objective, seed: int, constraints: Constraints = NO_CONSTRAINTS
    ) -> tuple[InnerFront, ...]:
        """Fronts of all backbones, in the tables' order."""
        exact = [
            n_choices(tables, b, objective) <= self.exact_limit and p <= MAX_EXHAUSTIVE_POSITIONS
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
