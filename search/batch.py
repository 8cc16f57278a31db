"""Which points of a pool to measure together: most expected hypervolume per second.

Every joint draw of the predictors is a plausible world.  In each, a point improves the measured
front by some hypervolume (Monte-Carlo expected hypervolume improvement, with the composite
objective evaluated per draw: Astudillo & Frazier, ICML 2019).  A batch is built greedily, each
point given those before it (see :mod:`.lazy_greedy`); a share of it is chosen for what it tells
(see :mod:`.information`).

Some costs are shared: the accuracy of a new backbone is measured once, whichever and however many
of its designs are measured then.  Charged to one point alone, such a cost makes every new backbone
look dear; so the first point of a group whose cost is not paid is weighed with the points that
would follow it: gain of the best few together per their joint cost.

The core knows rows of a pool only, no designs.  Everything is minimised.
Shapes: s draws, n points in the pool, q measured points, m objectives, g groups.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..errors import StudyError
from .improvement import drawn_sets
from .information import Knowledge, undecided_variance
from .lazy_greedy import LOOKAHEAD, SMALLEST_GAIN, BoolArray, Choice, LazyGreedy, Prices, Reason
from .metrics import HypervolumeReference
from .tables import FloatArray

__all__ = [
    "LOOKAHEAD",
    "SMALLEST_GAIN",
    "BoolArray",
    "Choice",
    "MeasuredErrors",
    "Prices",
    "Reason",
    "choose_batch",
    "reference_scale",
]


@dataclass(frozen=True)
class MeasuredErrors:
    """What makes repeats candidates: errors of the measured points, and what a repeat costs.

    Attributes:
        standard_errors: (q, m) on the natural scale; the part that a repeat reduces
            (:func:`.repeating.repeatable_errors`).
        cost_s: (q,) cost of measuring each again.
    """

    standard_errors: FloatArray
    cost_s: FloatArray


def choose_batch(
    pool_draws: FloatArray,
    measured: FloatArray,
    reference: HypervolumeReference,
    *,
    batch: int,
    prices: Prices,
    information_share: float = 0.25,
    pending_draws: FloatArray | None = None,
    feasible: BoolArray | None = None,
    pending_feasible: BoolArray | None = None,
    errors: MeasuredErrors | None = None,
    lookahead: int = LOOKAHEAD,
) -> tuple[Choice, ...]:
    """Choose up to ``batch`` points of a pool.

    Args:
        pool_draws: (s, n, m) objectives of each point in each joint draw, natural scale.
        measured: (q, m) measured points; where there are constraints, those that meet them.
        reference: what hypervolume is measured to; says which objectives are compared as logs.
        batch: points wanted.
        prices: of the n points.
        information_share: share of the batch (of the pool, if that is smaller) chosen for what it tells
            instead of what it gains, rounded down to whole points: at 0.25 one of four, none of two.
        pending_draws: (s, p, m) draws of points that are being measured: they count as if they had
            come out as drawn.
        feasible: (s, n) whether a point meets the constraints in a draw; where it does not it gains nothing.
        pending_feasible: (s, p) likewise.
        errors: of the measured points; given, measured points may be chosen again as ``repeat``,
            within the share for information.
        lookahead: points that may share the cost of a new group; 1 charges it to the first alone.

    Returns:
        Choices in the order chosen, improvements first.  When nothing gains any more the rest is
        chosen for information; fewer than ``batch`` only if the pool is smaller.

    Raises:
        StudyError: shapes that do not fit together, draws that are no numbers, or a share outside 0 .. 1.
    """
    _check(pool_draws, measured, reference, prices, feasible, information_share, lookahead)
    n_wanted = min(batch, pool_draws.shape[1])
    if n_wanted < 1:
        return ()
    # 0.29 * 100 is a little below 29 in binary; what is meant is 29.
    n_information = math.floor(information_share * n_wanted + 1e-9)
    drawn = reference.transform(pool_draws)
    base = reference.transform(measured)
    sets = drawn_sets(base, len(drawn), np.array(reference.point))
    pending = None if pending_draws is None else reference.transform(pending_draws)
    if pending is not None:
        for i in range(pending.shape[1]):
            sets.add(pending[:, i], None if pending_feasible is None else pending_feasible[:, i])
    greedy = LazyGreedy(drawn, sets, prices, feasible, lookahead)
    chosen = greedy.choose(n_wanted - n_information)
    n_left = n_wanted - len(chosen)
    if n_left:
        scale = reference_scale(reference, measured)
        known = None if pending is None else pending / scale
        knowledge = _knowledge(drawn / scale, known, chosen, greedy.relevance())
        repeats = _Repeats.of(errors, base, measured, reference, scale)
        chosen += _informative(knowledge, greedy, repeats, n_left)
    return tuple(chosen)


def _knowledge(
    drawn: FloatArray, pending: FloatArray | None, chosen: Sequence[Choice], relevance: FloatArray
) -> Knowledge:
    """What will be known of the pool once pending and chosen points are measured; draws in units of the scale."""
    knowledge = Knowledge(drawn, relevance)
    for one in [] if pending is None else np.moveaxis(pending, 1, 0):
        knowledge.learn_of(one)
    for choice in chosen:
        knowledge.learn(choice.index)
    return knowledge


@dataclass
class _Repeats:
    """Measured points that may be measured again, each once: (q,) variance learned, cost."""

    learned: FloatArray
    cost_s: FloatArray

    @classmethod
    def of(
        cls, errors: MeasuredErrors | None, base: FloatArray, measured: FloatArray,
        reference: HypervolumeReference, scale: FloatArray,
    ) -> Self:  # fmt: skip
        """None without errors; those on a log scale are relative."""
        if errors is None:
            return cls(np.zeros(0), np.zeros(0))
        relative = np.where(
            np.array(reference.log), errors.standard_errors / measured, errors.standard_errors
        )
        return cls(undecided_variance(base / scale, relative / scale), errors.cost_s)


def _informative(knowledge: Knowledge, greedy: LazyGreedy, repeats: _Repeats, n: int) -> list[Choice]:
    """``n`` points by what they tell per second, each given those before it; then the earliest."""
    chosen: list[Choice] = []
    learned = repeats.learned / knowledge.total if knowledge.total > 0 else np.zeros(len(repeats.learned))
    for _ in range(n):
        free = np.flatnonzero(greedy.free())
        if not len(free):
            break
        ratio = knowledge.learned_shares(free) / greedy.prices.now()[free]
        again = learned / repeats.cost_s
        if len(again) and again.max() > max(float(ratio.max()), 0.0):
            i = int(np.argmax(again))
            chosen.append(Choice(i, "repeat", 0.0, float(repeats.cost_s[i]), float(again[i])))
            learned[i] = 0.0
            continue
        order = np.argsort(-ratio, kind="stable")
        j = int(free[order[0]])
        other = (int(free[order[1]]), float(ratio[order[1]])) if len(free) > 1 else None
        cost_s, probability = float(greedy.prices.now()[j]), float(greedy.probability_of_gain[j])
        chosen.append(
            Choice(j, "information", greedy.gain(j), cost_s, float(ratio[order[0]]), 1, probability, other)
        )
        knowledge.learn(j)
        greedy.take(j)
    return chosen


def reference_scale(reference: HypervolumeReference, measured: FloatArray) -> FloatArray:
    """(m,) distance from the best measured value to the reference, per objective: a unit to compare in."""
    best = reference.transform(measured).min(axis=0, initial=np.inf)
    distance = np.array(reference.point) - best
    return np.where(np.isfinite(distance), np.maximum(distance, 1e-9), 1.0)


def _check(
    pool_draws: FloatArray,
    measured: FloatArray,
    reference: HypervolumeReference,
    prices: Prices,
    feasible: BoolArray | None,
    information_share: float,
    lookahead: int,
) -> None:
    if not 0.0 <= information_share <= 1.0:
        raise StudyError(f"information_share = {information_share}: must lie between 0 and 1")
    if lookahead < 1:
        raise StudyError(f"lookahead = {lookahead}: must be at least 1")
    m = len(reference.point)
    if pool_draws.ndim != 3 or pool_draws.shape[2] != m or measured.ndim != 2 or measured.shape[1] != m:
        raise StudyError(
            f"draws of shape {pool_draws.shape} and measured points of shape {measured.shape} do not fit a "
            f"reference with {m} objectives ({', '.join(reference.columns)})"
        )
    if not np.isfinite(pool_draws).all() or not np.isfinite(measured).all():
        raise StudyError("draws and measured points must be finite numbers")
    if len(prices.item_s) != pool_draws.shape[1]:
        raise StudyError(f"prices of {len(prices.item_s)} points, draws of {pool_draws.shape[1]}")
    if feasible is not None and feasible.shape != pool_draws.shape[:2]:
        raise StudyError(f"feasible has shape {feasible.shape}, draws {pool_draws.shape[:2]}")
