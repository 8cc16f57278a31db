"""Ways to choose a batch, by name: ours, and those that it is compared with.

All get the same draws of the same pool, and all pay the same prices.  Whatever a choice was made by, its expected
gain and probability are over all draws; ``why`` is the name of the strategy, except of ours.

=============  =============================================================================
``hvi``        expected hypervolume improvement per cost, exact (:func:`.batch.choose_batch`)
``qlognehvi``  BoTorch's qLogNEHVI on the same draws (:mod:`.botorch_batch`); looks at no costs
``mean``       hypervolume improvement per cost of the mean of the draws: as if it were certain
``thompson``   each point: most improvement per cost in one random draw (in the manner of TSEMO,
               Bradford, Schweidtmann, Lapkin, Journal of Global Optimization 2018)
``variance``   largest predictive variance, summed over objectives; looks at no costs
``spread``     of the front of the mean, the points that fill the largest gaps along the second
               objective (in the manner of NSGANetV2, Lu et al., ECCV 2020); looks at no costs
``random``     uniformly
=============  =============================================================================

Shapes: s draws, n points in the pool, q measured points, m objectives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from ..errors import StudyError
from ..surrogates.threads import single_thread
from .batch import SMALLEST_GAIN, BoolArray, Choice, Prices, Reason, choose_batch, reference_scale
from .improvement import DrawnSets, drawn_sets
from .metrics import HypervolumeReference
from .ranking import constrained_ranks, pareto_ranks
from .tables import FloatArray


@dataclass(frozen=True)
class BatchProblem:
    """What a strategy chooses from.

    Attributes:
        pool_draws: (s, n, m) objectives of each point in each joint draw, minimised, natural scale.
        measured: (q, m) measured points.
        reference: what hypervolume is measured to.
        prices: of the n points.
        pending_draws: (s, p, m) draws of points that are being measured, if any.
        feasible: (s, n) whether a point meets the constraints in a draw; ``None`` = always.
        pending_feasible: (s, p) likewise.
    """

    pool_draws: FloatArray
    measured: FloatArray
    reference: HypervolumeReference
    prices: Prices
    pending_draws: FloatArray | None = None
    feasible: BoolArray | None = None
    pending_feasible: BoolArray | None = None

    @property
    def n(self) -> int:
        """Points in the pool."""
        return int(self.pool_draws.shape[1])

    @cached_property
    def point(self) -> FloatArray:
        """(m,) the reference point."""
        return np.array(self.reference.point)

    @cached_property
    def drawn(self) -> FloatArray:
        """(s, n, m) draws on the scale of the reference; at the reference where a point is not feasible."""
        return self._counting(self.pool_draws, self.feasible)

    @cached_property
    def pending(self) -> FloatArray | None:
        """(s, p, m) pending draws likewise."""
        return (
            None if self.pending_draws is None else self._counting(self.pending_draws, self.pending_feasible)
        )

    def _counting(self, draws: FloatArray, feasible: BoolArray | None) -> FloatArray:
        drawn = self.reference.transform(draws)
        return drawn if feasible is None else np.where(feasible[:, :, None], drawn, self.point)

    def sets(self, which: Sequence[int]) -> DrawnSets:
        """What some of the draws have already: measured and pending points."""
        found = drawn_sets(self.reference.transform(self.measured), len(which), self.point)
        for one in [] if self.pending is None else np.moveaxis(self.pending[list(which)], 1, 0):
            found.add(one)
        return found


class Strategy(Protocol):
    """Chooses a batch."""

    def __call__(self, problem: BatchProblem, batch: int, seed: int) -> tuple[Choice, ...]:
        """Up to ``batch`` points in the order chosen, fewer only if the pool is smaller; ``seed`` fixes them."""
        ...


def strategy_by_name(name: str) -> Strategy:
    """The strategy of a name.

    Raises:
        StudyError: no such strategy.
    """
    if name not in STRATEGIES:
        raise StudyError(f"no strategy '{name}'; known: {', '.join(STRATEGIES)}")
    return STRATEGIES[name]


def hvi(problem: BatchProblem, batch: int, seed: int) -> tuple[Choice, ...]:
    """Ours, without a share for information: every point for what it gains."""
    return choose_batch(
        problem.pool_draws, problem.measured, problem.reference, batch=batch, prices=problem.prices,
        information_share=0.0, pending_draws=problem.pending_draws, feasible=problem.feasible,
        pending_feasible=problem.pending_feasible,
    )  # fmt: skip


def mean(problem: BatchProblem, batch: int, seed: int) -> tuple[Choice, ...]:
    """Improvement of the mean of the draws, per cost; what gains nothing in the mean follows by variance.

    As if it were certain, too, that a point meets the constraints which it meets in half of the draws or more.
    """
    certain = HypervolumeReference(
        problem.reference.columns, (False,) * len(problem.point), problem.reference.point
    )
    means, likely = _mean_opinion(problem, problem.pool_draws, problem.feasible)
    pending, pending_likely = (
        (None, None)
        if problem.pending_draws is None
        else _mean_opinion(problem, problem.pending_draws, problem.pending_feasible)
    )
    found = choose_batch(
        means, problem.reference.transform(problem.measured), certain, batch=batch, prices=problem.prices,
        information_share=0.0, pending_draws=pending, feasible=likely, pending_feasible=pending_likely,
    )  # fmt: skip
    gaining = [choice.index for choice in found if choice.why == "improvement"]
    more = [j for j in _ordered(-_variance(problem)) if j not in set(gaining)]
    return priced(problem, [*gaining, *more][:batch], "mean")


def thompson(problem: BatchProblem, batch: int, seed: int) -> tuple[Choice, ...]:
    """Each point: the best in one draw, given those before it as they came out in that draw."""
    rng, prices, chosen = np.random.default_rng(seed), problem.prices, list[int]()
    for _ in range(min(batch, problem.n)):
        draw = int(rng.integers(len(problem.drawn)))
        sets = problem.sets([draw])
        for j in chosen:
            sets.add(problem.drawn[[draw], j])
        score = sets.gains(problem.drawn[[draw]])[0] / prices.now()
        score[chosen] = -1.0
        # Where a draw promises nothing, any point will do.
        best = int(np.argmax(score)) if score.max() > 0 else int(rng.choice(np.flatnonzero(score >= 0)))
        chosen.append(best)
        prices = prices.after(best)
    return priced(problem, chosen, "thompson")


def variance(problem: BatchProblem, batch: int, seed: int) -> tuple[Choice, ...]:
    """The points that least is known of."""
    return priced(problem, _ordered(-_variance(problem))[:batch], "variance")


def random(problem: BatchProblem, batch: int, seed: int) -> tuple[Choice, ...]:
    """Any points."""
    order = _ordered(np.random.default_rng(seed).permutation(problem.n).astype(np.float64))
    return priced(problem, order[:batch], "random")


def spread(problem: BatchProblem, batch: int, seed: int) -> tuple[Choice, ...]:
    """Fronts of the mean, best first; within a front whatever is farthest from all others along one objective.

    Others are the measured front and the points chosen before.  Points that miss the constraints in more than half
    of the draws come last.
    """
    (means,), (likely,) = _mean_opinion(problem, problem.pool_draws, problem.feasible)
    ranks = constrained_ranks(means, np.where(likely, 0.0, 1.0))
    measured = problem.reference.transform(problem.measured)
    taken = measured[pareto_ranks(measured) == 0, 1].tolist() if len(measured) else []
    order: list[int] = []
    while len(order) < min(batch, problem.n):
        left = np.setdiff1d(np.arange(problem.n), order)
        front = left[ranks[left] == ranks[left].min()]
        gaps = [min((abs(float(means[j, 1]) - other) for other in taken), default=np.inf) for j in front]
        order.append(int(front[int(np.argmax(gaps))]))
        taken.append(float(means[order[-1], 1]))
    return priced(problem, order, "spread")


def qlognehvi(problem: BatchProblem, batch: int, seed: int) -> tuple[Choice, ...]:
    """BoTorch's."""
    from .botorch_batch import choose_by_qlognehvi, qlognehvi_of  # seconds of import

    measured = problem.reference.transform(problem.measured)
    with single_thread():
        acquisition = qlognehvi_of(problem.drawn, measured, problem.point, problem.pending)
        order, _ = choose_by_qlognehvi(acquisition, problem.n, batch)
    return priced(problem, order, "qlognehvi")


STRATEGIES: Mapping[str, Strategy] = {
    one.__name__: one for one in (hvi, qlognehvi, mean, thompson, variance, spread, random)
}
"""Every strategy by its name."""


def _mean_opinion(
    problem: BatchProblem, draws: FloatArray, feasible: BoolArray | None
) -> tuple[FloatArray, BoolArray]:
    """(1, n, m) means of draws on the scale of the reference; (1, n) whether at least half meet the constraints."""
    means = problem.reference.transform(draws).mean(axis=0, keepdims=True)
    if feasible is None:
        return means, np.ones(means.shape[:2], dtype=bool)
    return means, feasible.mean(axis=0, keepdims=True) >= 0.5


def _variance(problem: BatchProblem) -> FloatArray:
    """(n,) variance in units of the reference's scale, summed over objectives, x the chance to meet the constraints."""
    scale = reference_scale(problem.reference, problem.measured)
    found = (problem.reference.transform(problem.pool_draws) / scale).var(axis=0).sum(axis=1)
    return np.asarray(found if problem.feasible is None else found * problem.feasible.mean(axis=0))


def _ordered(key: FloatArray) -> list[int]:
    """All points, those of the smallest ``key`` (n,) first."""
    return [int(j) for j in np.argsort(key, kind="stable")]


def priced(problem: BatchProblem, order: Sequence[int], why: Reason) -> tuple[Choice, ...]:
    """Choices in a given order, with what each costs and is expected to gain over all draws, as ours has it."""
    sets, prices, chosen = problem.sets(range(len(problem.drawn))), problem.prices, []
    joins = (sets.gains(problem.drawn[:, list(order)]) > SMALLEST_GAIN).mean(axis=0)
    for j, probability in zip(order, joins, strict=True):
        gain, cost_s = float(sets.gains(problem.drawn[:, [j]])[:, 0].mean()), float(prices.now()[j])
        chosen.append(Choice(j, why, gain, cost_s, gain / cost_s, probability_of_gain=float(probability)))
        sets.add(problem.drawn[:, j])
        prices = prices.after(j)
    return tuple(chosen)
