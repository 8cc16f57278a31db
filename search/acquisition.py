"""What to measure next: the batch that promises most hypervolume per second of measuring.

Every joint draw of the predictors is a plausible world.  In each, a design improves the
measured front by some hypervolume (Monte-Carlo expected hypervolume improvement, with the
composite objective evaluated per draw: Astudillo & Frazier, ICML 2019).  A batch is built
greedily; hypervolume improvement is submodular, so an old gain bounds the present one and
most gains need not be computed again (lazy greedy, Minoux 1978; Leskovec et al., KDD 2007).

Unit costs are frozen when a batch is planned.  An unmeasured backbone costs an accuracy job
besides the device time, once per batch.

Shapes: s draws, n designs in the pool, q measured points, m objectives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import StudyError
from .designs import Design
from .metrics import HypervolumeReference
from .outer import Candidate, SearchResult
from .ranking import best_first, front_indices
from .tables import FloatArray

Reason = Literal["improvement", "information"]


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
        why: ``improvement`` (gain per second) or ``information`` (largest predictive variance).
    """

    design: Design
    expected_gain: float
    cost_s: float
    why: Reason


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
) -> tuple[Suggestion, ...]:
    """Choose a batch from the pool.

    Args:
        pool: n designs, neither measured nor pending.
        pool_draws: (s, n, m) objectives of each design in each joint draw, natural scale.
        measured: (q, m) measured points.
        reference: the study's hypervolume reference.
        measured_backbones: ``arch_id`` of backbones whose accuracy is measured (or pending).
        costs: frozen unit costs.
        batch: designs wanted.
        pending_draws: (s, p, m) draws of designs that are being measured; they count as if
            they had come out as drawn.
        information_share: share of the batch chosen by predictive variance instead of gain, rounded
            down to whole designs: at 0.25 one of four, none of two.

    Returns:
        At most ``batch`` suggestions, improvements first; fewer only if the pool is smaller.
    """
    if not 0.0 <= information_share <= 1.0:
        raise StudyError(f"information_share = {information_share}: must lie between 0 and 1")
    n_wanted = min(batch, len(pool))
    # 0.29 * 100 is a little below 29 in binary; what is meant is 29.
    n_information = min(n_wanted, math.floor(information_share * batch + 1e-9))
    improver = _Improver(pool_draws, measured, pending_draws, reference)
    price = _Prices([design.backbone.arch_id for design in pool], measured_backbones, costs)
    chosen = [
        Suggestion(pool[j], gain, cost, "improvement")
        for j, gain, cost in lazy_greedy(improver, price, n_wanted - n_information)
    ]
    variance = (
        reference.transform(pool_draws).var(axis=0) / np.array(reference_scale(reference, measured)) ** 2
    )
    for j in _informative(variance.sum(axis=1), pool, [s.design for s in chosen], n_wanted - len(chosen)):
        chosen.append(Suggestion(pool[j], improver.gain(j), price.of(j), "information"))
        price.pay(j)
        improver.add(j)
    return tuple(chosen)


def reference_scale(reference: HypervolumeReference, measured: FloatArray) -> FloatArray:
    """(m,) distance from the best measured value to the reference, per objective: a unit to compare in."""
    best = reference.transform(measured).min(axis=0)
    return np.asarray(np.maximum(np.array(reference.point) - best, 1e-9))


class _Prices:
    """Seconds per design; an accuracy job is paid once per backbone."""

    def __init__(self, arch_ids: Sequence[str], measured: AbstractSet[str], costs: UnitCosts) -> None:
        self._arch_ids, self._paid, self._costs = arch_ids, set(measured), costs

    def of(self, j: int) -> float:
        extra = 0.0 if self._arch_ids[j] in self._paid else self._costs.accuracy_s
        return self._costs.device_s + extra

    def all(self) -> FloatArray:
        return np.array([self.of(j) for j in range(len(self._arch_ids))])

    def pay(self, j: int) -> None:
        self._paid.add(self._arch_ids[j])


class _Improver:
    """Expected hypervolume gain of pool designs over a growing set."""

    def __init__(
        self,
        pool_draws: FloatArray,
        measured: FloatArray,
        pending_draws: FloatArray | None,
        reference: HypervolumeReference,
    ) -> None:
        self._draws, self._reference = reference.transform(pool_draws), reference
        base = reference.transform(measured)
        self._sets = [base] * len(pool_draws)
        if pending_draws is not None:
            pending = reference.transform(pending_draws)
            self._sets = [np.concatenate([base, drawn]) for drawn in pending]
        self._trim()

    def _trim(self) -> None:
        """Keep non-dominated points only: the volumes stay, computing them gets cheaper."""
        self._sets = [points[front_indices(points)] for points in self._sets]
        self._volumes = [self._reference.transformed_hypervolume(points) for points in self._sets]

    @property
    def n_designs(self) -> int:
        return int(self._draws.shape[1])

    def gain(self, j: int) -> float:
        """Mean over draws of HV(set + j) - HV(set)."""
        return float(
            np.mean(
                [
                    self._reference.transformed_hypervolume(np.concatenate([points, drawn[j : j + 1]]))
                    - volume
                    for points, volume, drawn in zip(self._sets, self._volumes, self._draws, strict=True)
                ]
            )
        )

    def add(self, j: int) -> None:
        """Count design j as measured: in each draw, as drawn."""
        self._sets = [
            np.concatenate([points, drawn[j : j + 1]])
            for points, drawn in zip(self._sets, self._draws, strict=True)
        ]
        self._trim()


def lazy_greedy(improver: _Improver, prices: _Prices, n: int) -> list[tuple[int, float, float]]:
    """Up to ``n`` designs by gain per second, each given those before it.

    Stops when nothing gains any more.  The choice equals that of computing every gain anew
    at each step; ties go to the earlier design.

    Returns:
        (design, gain, cost in seconds) in the order chosen.
    """
    if n < 1 or not improver.n_designs:
        return []
    gains = np.array([improver.gain(j) for j in range(improver.n_designs)])
    fresh = np.ones(len(gains), dtype=bool)
    chosen: list[tuple[int, float, float]] = []
    while len(chosen) < n:
        # A stale gain is an upper bound, so the best ratio that is fresh is the best of all.
        j = int(np.argmax(gains / prices.all()))
        if not fresh[j]:
            gains[j], fresh[j] = improver.gain(j), True
            continue
        if gains[j] <= 1e-12:
            break
        chosen.append((j, float(gains[j]), prices.of(j)))
        prices.pay(j)
        improver.add(j)
        fresh[:] = False
        gains[j], fresh[j] = -np.inf, True
    return chosen


def _informative(variance: FloatArray, pool: Sequence[Design], chosen: Sequence[Design], n: int) -> list[int]:
    """The ``n`` designs of largest variance, those of backbones not yet in the batch first."""
    taken, seen = set(chosen), {design.backbone for design in chosen}
    picks: list[int] = []
    for _ in range(n):
        free = [j for j in range(len(pool)) if pool[j] not in taken]
        new = [j for j in free if pool[j].backbone not in seen]
        best = max(new or free, key=lambda j: (variance[j], -j))
        picks.append(best)
        taken.add(pool[best])
        seen.add(pool[best].backbone)
    return picks
