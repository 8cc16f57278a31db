"""The nested search as one would write it first: pymoo's NSGA-II twice, and a predictor call per individual.

For every individual the predictors are asked for the final accuracy and the exit fractions of its backbone and for
the costs of its stages, and its objectives are computed.  Only the outcomes of a backbone (which samples its exits
would get right) are kept from one individual to the next, as they do not depend on exits and clocks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from _predictor_tasks import FloatArray
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import ElementwiseProblem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize
from scipy.special import expit

from hadas.search.designs import Design
from hadas.search.objectives import controller_terms
from hadas.search.outcomes import OutcomeLibrary
from hadas.search.tables import pack_samples
from hadas.spaces import Backbone, Exits, MBConvSpace
from hadas.surrogates.predictor_set import PredictorSet


class PlainWorld:
    """Objectives of one individual at a time."""

    def __init__(self, predictors: PredictorSet, library: OutcomeLibrary, space: MBConvSpace) -> None:
        self.predictors, self.library, self.space = predictors, library, space
        self._outcomes = lru_cache(maxsize=64)(self._packed_outcomes)

    def static(self, backbone: Backbone) -> FloatArray:
        """(3,) error, energy in mJ and latency in ms without exits at default clocks."""
        accuracy = expit(self.predictors.final_accuracy([backbone]).mean[0, 0])
        stages = self.predictors.workload(backbone).stages(())
        latency, energy = self.predictors.cost_model.medians(stages, [self.predictors.table.default])
        return np.array([1.0 - accuracy, energy[0], latency[0]])

    def dynamic(self, design: Design) -> FloatArray:
        """(2,) error and expected energy in mJ under the controller."""
        fractions = self._fractions(design.backbone)
        correct, leaves = self._outcomes(design.backbone, fractions.tobytes())
        samples = pack_samples(np.ones(self.library.n_samples, dtype=bool))
        terms = controller_terms(correct, leaves, samples, np.zeros(1, dtype=np.int64), design.mask[None])
        stages = self.predictors.workload(design.backbone).stages(design.exits.positions)
        _, energy = self.predictors.cost_model.medians(stages, [design.setting] * len(stages))
        reached = np.repeat(np.append(np.flatnonzero(design.mask), len(design.mask)), 2)[:-1]
        return np.array([terms.loss[0], float(terms.weight[0, reached] @ energy)])

    def _fractions(self, backbone: Backbone) -> FloatArray:
        final = self.predictors.final_accuracy([backbone]).mean[:, 0]
        exits = self.predictors.exit_fractions([backbone]).mean[:, 0]
        return np.asarray(expit(np.append(exits, final)))

    def _packed_outcomes(self, backbone: Backbone, fractions: bytes) -> tuple[Any, Any]:
        found = self.library.measured(backbone.arch_id) or self.library.borrowed(
            np.frombuffer(fractions, dtype=np.float64)
        )
        return pack_samples(found.correct[None]), pack_samples(found.leaves[None])


@dataclass(frozen=True)
class Slice:
    """A measured part of the plain search.

    Attributes:
        n_static, n_inner: individuals evaluated.
        static_s, inner_s: seconds of processor time they took, pymoo's own work included.
    """

    n_static: int
    n_inner: int
    static_s: float
    inner_s: float

    def scaled_s(self, n_static: int, n_inner: int) -> float:
        """Seconds of processor time of a whole budget at this speed."""
        return self.static_s / self.n_static * n_static + self.inner_s / self.n_inner * n_inner


def measured_slice(
    world: PlainWorld, population: int, inner_population: int, backbones: Sequence[Backbone], seed: int,
    inner_generations: int,
) -> Slice:  # fmt: skip
    """One outer generation, and some inner generations on each of some backbones."""
    space, table = world.space, world.predictors.table
    upper = np.array([len(variable.choices) - 1 for variable in space.variables])

    class Outer(ElementwiseProblem):  # type: ignore[misc]
        def _evaluate(self, x: Any, out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"] = world.static(space.decode(x.astype(np.int64)))

    began = time.process_time()
    _minimized(
        Outer(n_var=len(upper), n_obj=3, xl=np.zeros(len(upper)), xu=upper, vtype=int), population, 1, seed
    )
    static_s = time.process_time() - began
    n_inner = 0
    for backbone in backbones:
        p = backbone.n_blocks - space.first_exit

        class Inner(ElementwiseProblem):  # type: ignore[misc]
            def _evaluate(
                self, x: Any, out: dict[str, Any], *_: Any, backbone: Backbone = backbone, **__: Any
            ) -> None:
                genes = x.astype(np.int64)
                exits = Exits(space.first_exit, tuple(int(bit) for bit in genes[:-1]))
                out["F"] = world.dynamic(Design(backbone, exits, table.settings[genes[-1]]))

        limits = np.append(np.ones(p), len(table) - 1)
        n_inner += _minimized(
            Inner(n_var=p + 1, n_obj=2, xl=np.zeros(p + 1), xu=limits, vtype=int),
            inner_population, inner_generations, seed,
        )  # fmt: skip
    return Slice(population, n_inner, static_s, time.process_time() - began - static_s)


def _minimized(problem: ElementwiseProblem, population: int, generations: int, seed: int) -> int:
    """Evaluations of a run."""
    algorithm = NSGA2(
        pop_size=population, sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=3.0, vtype=float, repair=RoundingRepair()),
        mutation=PM(eta=3.0, vtype=float, repair=RoundingRepair()),
    )  # fmt: skip
    result = minimize(problem, algorithm, ("n_gen", generations), seed=seed, verbose=False)
    return int(result.algorithm.evaluator.n_eval)
