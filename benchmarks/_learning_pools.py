"""Active learning on a pool whose every point was measured by somebody: asked for, a point's value is looked up.

All strategies of ours and of others see the same seeds, the same model and, in every round, the same joint draws of
the same candidates; they differ in the choice alone.  Two more are named alternatives: the *plain GP* (plain
columns, seeds at random, the same Monte-Carlo hypervolume improvement) and *random order*, which models nothing.
Our model fitted to *all rows* and, of each point, to *all others* but its fold say what more rows could make of it:
the first knows what chance made of each point's run, the second does not.

The reference point of the hypervolume is that of the exact front, and all strategies know it, as a study knows the one
that it has frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from _learning_tasks import KNOWS_ALL, KNOWS_OTHERS, OURS, Bound, Curve
from _plain_models import FittedGaussianProcess
from _predictor_tasks import FloatArray, IntArray

from hadas.search.batch import Prices
from hadas.search.improvement import drawn_sets
from hadas.search.metrics import HypervolumeReference
from hadas.search.objectives import Column
from hadas.search.ranking import front_indices
from hadas.search.space_filling import farthest_first
from hadas.search.strategies import STRATEGIES, BatchProblem
from hadas.surrogates.threads import single_thread

N_DRAWS = 64
N_FOLDS = 32
"""Parts of a pool of which each is predicted from all the others."""

MEASUREMENTS = "measurements"
PLAIN_GP = "plain GP"
RANDOM = "random"

OPTIMISM = 2.0
"""Predicted standard deviations by which optimistic values are better than means."""


class FittedPool(Protocol):
    """Predictions for all N points of a pool, on the scale on which hypervolume is measured."""

    def moments(self) -> tuple[FloatArray, FloatArray]:
        """Means and standard deviations (N, m)."""
        ...

    def draws(self, rows: IntArray, n_draws: int, seed: int) -> FloatArray:
        """(s, len(rows), m) joint draws."""
        ...


@dataclass(frozen=True)
class Pool:
    """N points, and what was measured of them.

    Attributes:
        values: (N, m) objectives, minimised, natural scale.
        columns: the m objectives.
        seed_columns: (N, d) what is known before anything is measured, to spread seeds over.
        seed_first: rows that are seeds in any case.
        plain_columns: (N, d) for the plain GP.
        known: (m,) whether an objective needs no measuring.
        fit: our model, fitted to some rows.
    """

    values: FloatArray
    columns: tuple[Column, ...]
    seed_columns: FloatArray
    seed_first: tuple[int, ...]
    plain_columns: FloatArray
    known: tuple[bool, ...]
    fit: Callable[[IntArray, int], FittedPool]

    @cached_property
    def fitted_to_all(self) -> FittedPool:
        """Our model of the whole truth."""
        return self.fit(np.arange(len(self.values)), 0)

    @cached_property
    def fitted_to_others(self) -> FittedPool:
        """Every point as our model of the rest of the truth predicts it."""
        return FoldedPool.of(self)

    def exact_reference(self) -> HypervolumeReference:
        """1.1 x the range of the exact front beyond its best values.

        Stricter than :meth:`HypervolumeReference.from_front`, whose point lies 1.1 x the range beyond the
        *worst* values of the front: ends of the front then make up most of the volume, and nothing else matters.
        """
        wide = HypervolumeReference.from_front(self.values, self.columns)
        front = wide.transform(self.values)
        front = front[front_indices(front)]
        point = front.min(axis=0) + 1.1 * np.ptp(front, axis=0)
        return HypervolumeReference(wide.columns, wide.log, tuple(float(v) for v in point))


@dataclass(frozen=True)
class PoolTask:
    """A :class:`LearningTask` on pools, one per instance.

    Attributes:
        pools: made on demand.
        n_seeds: measured first; batch: measured between two fits.
        n_promising, n_unsure: candidates of a round: those whose optimistic values would gain most, and those that
            least is known of.
    """

    name: str
    truth: str
    pools: Mapping[str, Callable[[], Pool]]
    n_seeds: int
    batch: int
    strategies: Mapping[str, int]
    bounds: tuple[Bound, ...]
    horizon: float
    facts: Mapping[str, str]
    counter: str = MEASUREMENTS
    n_promising: int = 192
    n_unsure: int = 64
    instances: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "instances", tuple(self.pools))

    def run(self, instance: str, strategy: str, seed: int) -> Curve:
        """See :class:`LearningTask`."""
        pool = self.pools[instance]()
        run = _Run(pool, self, strategy, seed)
        with single_thread():
            return run.curve()


class _Judge:
    """Share of the exact hypervolume after every measurement, by one reference."""

    def __init__(self, reference: HypervolumeReference, values: FloatArray) -> None:
        self._reference, self._exact = reference, reference.hypervolume(values)
        self._front = np.zeros((0, values.shape[1]))
        self.shares: list[float] = []

    def see(self, value: FloatArray) -> None:
        """Count one more measured point (m,)."""
        point = self._reference.transform(value[None])
        if (self._front <= point).all(axis=1).any():
            self.shares.append(self.shares[-1])
            return
        # Points that the new one dominates go: the volume stays, and computing it gets cheaper.
        self._front = np.vstack([self._front[(self._front < point).any(axis=1)], point])
        self.shares.append(self._reference.transformed_hypervolume(self._front) / self._exact)


@dataclass
class _Run:
    """One strategy on one pool."""

    pool: Pool
    task: PoolTask
    strategy: str
    seed: int

    def curve(self) -> Curve:
        """Measure seeds and then batches until enough of the hypervolume is reached, or the horizon."""
        wide = HypervolumeReference.from_front(self.pool.values, self.pool.columns)
        judges = [_Judge(one, self.pool.values) for one in (self.pool.exact_reference(), wide)]
        enough, rounds = max(bound.share for bound in self.task.bounds), 0
        measured: list[int] = []
        while not measured or (
            len(measured) < self.task.horizon and min(j.shares[-1] for j in judges) < enough
        ):
            chosen = self._chosen(np.array(measured), rounds) if measured else self._seeds().tolist()
            for judge in judges:
                for row in chosen:
                    judge.see(self.pool.values[row])
            rounds += bool(measured)
            measured += chosen
        spent = {MEASUREMENTS: tuple(float(i + 1) for i in range(len(measured)))}
        beyond = Curve(tuple(judges[1].shares), spent, {})
        notes = {
            f"needed to {100 * share:g} % by a reference beyond the nadir": beyond.needed(share, MEASUREMENTS)
            for share in (0.99, 0.998)
        }
        return Curve(tuple(judges[0].shares), spent, notes)

    def _seeds(self) -> IntArray:
        rng = np.random.default_rng([71, self.seed])
        if self.strategy in (PLAIN_GP, RANDOM):
            order = rng.permutation(len(self.pool.values))
            # Random order costs nothing and goes on to the end of the pool.
            return order if self.strategy == RANDOM else order[: self.task.n_seeds]
        return farthest_first(self.pool.seed_columns, self.task.n_seeds, rng, self.pool.seed_first)

    def _chosen(self, measured: IntArray, rounds: int) -> list[int]:
        """Rows of the pool to measure next, in order, by a model of those measured."""
        left = np.setdiff1d(np.arange(len(self.pool.values)), measured)
        number = 1000 * self.seed + rounds
        values = self.pool.values[measured]
        reference = self.pool.exact_reference()
        fitted = self._fitted(measured, reference)
        rows = self._candidates(fitted, reference, values, left)
        drawn = fitted.draws(rows, N_DRAWS, number)
        drawn[:, :, list(self.pool.known)] = reference.transform(self.pool.values[rows])[
            :, list(self.pool.known)
        ]
        natural = np.where(np.array(reference.log), np.exp(drawn), drawn)
        problem = BatchProblem(natural, values, reference, Prices.equal(len(rows)))
        name = "hvi" if self.strategy in (OURS, PLAIN_GP, KNOWS_ALL, KNOWS_OTHERS) else self.strategy
        return [int(rows[choice.index]) for choice in STRATEGIES[name](problem, self.task.batch, number)]

    def _candidates(
        self, fitted: FittedPool, reference: HypervolumeReference, values: FloatArray, left: IntArray
    ) -> IntArray:
        """Rows that a choice is made among, ascending: all that are left, where these are few."""
        task = self.task
        if len(left) <= task.n_promising + task.n_unsure:
            return left
        mean, sd = fitted.moments()
        point = np.array(reference.point)
        hopeful = (mean - OPTIMISM * sd)[left]
        gains = drawn_sets(reference.transform(values), 1, point).gains(hopeful[None])[0]
        scale = point - reference.transform(values).min(axis=0)
        unsure = ((sd[left] / scale) ** 2).sum(axis=1)
        best = np.argsort(-gains, kind="stable")[: task.n_promising]
        widest = np.argsort(-unsure, kind="stable")[: task.n_unsure]
        return np.asarray(left[np.union1d(best, widest)])

    def _fitted(self, measured: IntArray, reference: HypervolumeReference) -> FittedPool:
        if self.strategy == PLAIN_GP:
            target = reference.transform(self.pool.values[measured])
            return PlainPool.fit(self.pool, measured, target, self.seed)
        if self.strategy == KNOWS_ALL:
            return self.pool.fitted_to_all
        if self.strategy == KNOWS_OTHERS:
            return self.pool.fitted_to_others
        return self.pool.fit(measured, self.seed)


@dataclass(frozen=True)
class PlainPool:
    """A Gaussian process per objective on plain columns; a :class:`FittedPool`.

    Attributes:
        columns: (N, d); models: of the m objectives.
    """

    columns: FloatArray
    models: tuple[FittedGaussianProcess, ...]

    @classmethod
    def fit(cls, pool: Pool, measured: IntArray, target: FloatArray, seed: int) -> PlainPool:
        """Fit to (q, m) measured values on the scale of hypervolume."""
        x = pool.plain_columns[measured]
        models = tuple(FittedGaussianProcess.fit(x, values, seed) for values in target.T)
        return cls(pool.plain_columns, models)

    def moments(self) -> tuple[FloatArray, FloatArray]:
        """See :class:`FittedPool`."""
        found = [model.predict(self.columns, return_std=True) for model in self.models]
        return np.stack([mean for mean, _ in found], axis=1), np.stack([sd for _, sd in found], axis=1)

    def draws(self, rows: IntArray, n_draws: int, seed: int) -> FloatArray:
        """See :class:`FittedPool`."""
        drawn = []
        for column, model in enumerate(self.models):
            mean, covariance = model.predict(self.columns[rows], return_cov=True)
            # Joint normal draws; what is added to the diagonal makes up for rounding.
            jitter = 1e-8 * float(np.trace(covariance)) / len(rows)
            root = np.linalg.cholesky(covariance + jitter * np.eye(len(rows)))
            normal = np.random.default_rng([seed, column]).standard_normal((n_draws, len(rows)))
            drawn.append(mean + np.einsum("sr,nr->sn", normal, root))
        return np.stack(drawn, axis=2)


@dataclass(frozen=True)
class FoldedPool:
    """Every point predicted from the other folds of its pool; a :class:`FittedPool`.

    Attributes:
        mean, sd: (N, m) of a single run.
    """

    mean: FloatArray
    sd: FloatArray

    @classmethod
    def of(cls, pool: Pool) -> FoldedPool:
        """Our model of a pool without each fold, asked about that fold."""
        n = len(pool.values)
        fold = np.random.default_rng(79).permutation(n) % N_FOLDS
        mean, sd = np.empty_like(pool.values), np.empty_like(pool.values)
        for one in range(N_FOLDS):
            own = fold == one
            means, sds = pool.fit(np.flatnonzero(~own), 0).moments()
            mean[own], sd[own] = means[own], sds[own]
        return cls(mean, sd)

    def moments(self) -> tuple[FloatArray, FloatArray]:
        """See :class:`FittedPool`."""
        return self.mean, self.sd

    def draws(self, rows: IntArray, n_draws: int, seed: int) -> FloatArray:
        """See :class:`FittedPool`; independent, as what all others leave open of a point is mostly its own."""
        normal = np.random.default_rng([83, seed]).standard_normal((n_draws, len(rows), self.mean.shape[1]))
        return np.asarray(self.mean[rows] + self.sd[rows] * normal)
