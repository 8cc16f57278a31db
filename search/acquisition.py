"""What to measure next: the batch of designs that promises most hypervolume per second of measuring.

The study's door to :mod:`.batch`, which knows rows of a pool only: here designs become rows, unit
costs prices (an unmeasured backbone costs an accuracy job besides the device time, once per batch),
and choices suggestions that say why they were made (see :mod:`.explaining`).

Unit costs are frozen when a batch is planned.

Shapes: s draws, n designs in the pool, q measured points, m objectives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from ..errors import StudyError
from .batch import (
    LOOKAHEAD,
    BoolArray,
    Choice,
    MeasuredErrors,
    Prices,
    Reason,
    choose_batch,
)
from .designs import Design
from .metrics import HypervolumeReference
from .outer import Candidate, SearchResult
from .ranking import best_first
from .strategies import BatchProblem, strategy_by_name
from .tables import FloatArray

SMALLEST_COST_S = 1e-6
"""Stands in for device time where there was none."""


def covering_reference(
    reference: HypervolumeReference,
    measured: FloatArray,
    pool_draws: FloatArray,
    feasible: BoolArray | None = None,
) -> HypervolumeReference:
    """The reference that gains of candidates are measured to.

    The front of the seeds, which froze the study's, may be narrow; it is moved out for what is measured and for
    candidates at their medians (:meth:`.metrics.HypervolumeReference.covering`), but not for those that rather miss a
    constraint.

    Args:
        measured: (q, m) measured points; pool_draws: (s, n, m); feasible: (s, n), ``None`` = always.
    """
    medians = np.median(pool_draws, axis=0)
    likely = slice(None) if feasible is None else feasible.mean(axis=0) >= 0.5
    return reference.covering(np.concatenate([measured, medians[likely]]))


@dataclass(frozen=True)
class UnitCosts:
    """What measuring costs, frozen at plan time.

    Attributes:
        device_s: device time of one cost row, seconds.
        accuracy_s: one accuracy job (exits trained and evaluated on one backbone), seconds.
    """

    device_s: float
    accuracy_s: float

    def __post_init__(self) -> None:
        for name in ("device_s", "accuracy_s"):
            if not math.isfinite(getattr(self, name)) or getattr(self, name) < 0:
                raise StudyError(
                    f"unit cost '{name}' = {getattr(self, name)!r} s: must be finite, not negative"
                )
        if self.device_s + self.accuracy_s <= 0:
            raise StudyError("unit costs are all zero: nothing to divide a gain by")


@dataclass(frozen=True)
class Suggestion:
    """One design to measure.

    Attributes:
        design: what to measure.
        expected_gain: expected hypervolume that it adds to the front, given those before it.
        cost_s: seconds that it costs, the accuracy job of a new backbone included.
        why: ``improvement`` (gain per second), ``information`` (what it tells about designs near the
            front, per second), ``repeat`` (measured, and not surely on the front or off it), or the name of
            another strategy that chose it.
        gain_per_s: the figure that it was chosen by; hypervolume, or share of the relevant
            variance, per second.  Of another strategy its expected hypervolume per second.
        n_sharing: designs of its new backbone that the accuracy job was shared among when it was
            compared; 1 if none is due.
        probability_of_gain: share of the draws in which it improves the measured front.
        median: (m,) medians of the objectives over the draws, natural scale; of a repeat what was measured.
        low_90, high_90: (m,) what 5 and 95 % of the draws do not exceed; empty for a repeat.
        accuracy_job_s: how much of ``cost_s`` is the accuracy job of its backbone.
        probability_feasible: share of the draws in which it meets the constraints; ``None`` without any.
        runner_up: the design that would have been chosen instead, if any, and its figure.
    """

    design: Design
    expected_gain: float
    cost_s: float
    why: Reason
    gain_per_s: float = 0.0
    n_sharing: int = 1
    probability_of_gain: float = 0.0
    median: tuple[float, ...] = ()
    low_90: tuple[float, ...] = ()
    high_90: tuple[float, ...] = ()
    accuracy_job_s: float = 0.0
    probability_feasible: float | None = None
    runner_up: tuple[Design, float] | None = None


def candidate_pool(
    results: Sequence[SearchResult], exclude: AbstractSet[Design], limit: int = 240
) -> tuple[Design, ...]:
    """Designs worth weighing: from every search, a share of its front and of each parent's front.

    Args:
        results: searches on the mean and on joint draws.
        exclude: measured and pending designs.
        limit: largest pool; shared evenly among the searches.
    """
    pool: dict[Design, None] = {}
    quota = max(1, limit // max(1, len(results)))
    for result in results:
        own: dict[Design, None] = {}
        groups: dict[str, list[Candidate]] = {}
        for candidate in result.candidates:
            groups.setdefault(candidate.design.backbone.arch_id, []).append(candidate)
        per_backbone = max(1, quota // (2 * max(1, len(groups))))
        spread = [c for group in groups.values() for c in _spread(group, result.reference, per_backbone)]
        # Half the quota at most goes to the parents, so that the front never crowds them out.
        for candidate in [*spread, *_spread(result.front, result.reference, quota)]:
            if candidate.design not in exclude and len(own) < quota:
                own[candidate.design] = None
        pool.update(own)
    return tuple(pool)


def _spread(candidates: Sequence[Candidate], reference: HypervolumeReference, n: int) -> list[Candidate]:
    """Up to ``n`` candidates, the least crowded of the front first."""
    if not candidates:
        return []
    points = reference.transform(np.array([candidate.objectives for candidate in candidates]))
    return [candidates[i] for i in best_first(points)[:n]]


def prices_of(pool: Sequence[Design], measured_backbones: AbstractSet[str], costs: UnitCosts) -> Prices:
    """Device time for every design, and an accuracy job for every backbone that has none yet."""
    names = list(dict.fromkeys(design.backbone.arch_id for design in pool))
    number = {name: g for g, name in enumerate(names)}
    return Prices(
        # Rows of a log took no device time; a gain per second needs some.
        item_s=np.full(len(pool), max(costs.device_s, SMALLEST_COST_S)),
        group=np.array([number[design.backbone.arch_id] for design in pool], dtype=np.int64),
        group_s=np.array([0.0 if name in measured_backbones else costs.accuracy_s for name in names]),
    )


def suggest(
    pool: Sequence[Design],
    pool_draws: FloatArray,
    *,
    measured: FloatArray,
    reference: HypervolumeReference,
    measured_backbones: AbstractSet[str],
    costs: UnitCosts,
    batch: int,
    pending_draws: FloatArray | None = None,
    information_share: float = 0.25,
    feasible: BoolArray | None = None,
    pending_feasible: BoolArray | None = None,
    measured_designs: Sequence[Design] = (),
    measured_errors: FloatArray | None = None,
    lookahead: int = LOOKAHEAD,
    strategy: str = "hvi",
    seed: int = 0,
) -> tuple[Suggestion, ...]:
    """Choose a batch from the pool.

    Args:
        pool: n designs, neither measured nor pending.
        pool_draws: (s, n, m) objectives of each design in each joint draw, natural scale.
        measured: (q, m) measured points; where there are constraints, those that meet them.
        reference: what gains are measured to (:func:`covering_reference`).
        measured_backbones: ``arch_id`` of backbones whose accuracy is measured (or pending).
        costs: frozen unit costs.
        batch: designs wanted.
        pending_draws: (s, p, m) draws of designs that are being measured; they count as if
            they had come out as drawn.
        information_share: share of the batch chosen by what it tells instead of gain, rounded
            down to whole designs: at 0.25 one of four, none of two.
        feasible: (s, n) whether a design meets the constraints in a draw; where it does not it gains nothing.
        pending_feasible: (s, p) likewise.
        measured_designs, measured_errors: the q designs and the part of their (q, m) standard errors
            that a repeat reduces (:func:`.repeating.repeatable_errors`); given, a design whose place
            on the front is open may be suggested again, within the share for information.
        lookahead: designs that may share the accuracy job of a new backbone in a comparison.
        strategy: another way to choose, to compare with (:data:`.strategies.STRATEGIES`); none of them spends a
            share on information, or measures anything again.
        seed: of a strategy that draws.

    Returns:
        At most ``batch`` suggestions, improvements first; fewer only if the pool is smaller.

    Raises:
        StudyError: shapes that do not fit together, or a share outside 0 .. 1.
    """
    errors = None
    if measured_errors is not None:
        errors = MeasuredErrors(measured_errors, np.full(len(measured), max(costs.device_s, SMALLEST_COST_S)))
    prices = prices_of(pool, measured_backbones, costs)
    if strategy == "hvi":
        choices = choose_batch(
            pool_draws, measured, reference, batch=batch, prices=prices,
            information_share=information_share, pending_draws=pending_draws, feasible=feasible,
            pending_feasible=pending_feasible, errors=errors, lookahead=lookahead,
        )  # fmt: skip
    else:
        problem = BatchProblem(
            pool_draws, measured, reference, prices, pending_draws, feasible, pending_feasible
        )
        choices = strategy_by_name(strategy)(problem, batch, seed)

    def suggestion(choice: Choice) -> Suggestion:
        again = choice.why == "repeat"
        j, other = choice.index, choice.runner_up
        # Drawn costs are skewed: a few draws far above the rest would decide a mean.
        low, median, high = (
            ((), measured[j], ()) if again else np.quantile(pool_draws[:, j], (0.05, 0.5, 0.95), axis=0)
        )
        return Suggestion(
            design=measured_designs[j] if again else pool[j],
            expected_gain=choice.expected_gain,
            cost_s=choice.cost_s,
            why=choice.why,
            gain_per_s=choice.gain_per_s,
            n_sharing=choice.n_sharing,
            probability_of_gain=choice.probability_of_gain,
            median=tuple(float(v) for v in median),
            low_90=tuple(float(v) for v in low),
            high_90=tuple(float(v) for v in high),
            accuracy_job_s=0.0 if again else choice.cost_s - float(prices.item_s[j]),
            probability_feasible=None if again or feasible is None else float(feasible[:, j].mean()),
            runner_up=None if other is None else (pool[other[0]], other[1]),
        )

    return tuple(suggestion(choice) for choice in choices)
