"""Designs that were measured more than once count once, at the mean of their costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..datasets.records import CostRecord, StageCost, Statistic
from .journal import MeasuredPoint

if TYPE_CHECKING:
    from ..measurement.accuracy.policies import ToleranceThresholds
    from ..search.designs import Design


def once_each(points: Sequence[MeasuredPoint], controller: ToleranceThresholds) -> list[MeasuredPoint]:
    """Points of distinct designs, in the order in which these were first measured.

    Left apart, the luckiest row of a design would stand for it on a front.
    """
    from ..search.designs import evaluate_measured

    rows: dict[Design, list[MeasuredPoint]] = {}
    for point in points:
        rows.setdefault(point.design, []).append(point)
    found = []
    for design, same in rows.items():
        first = same[0]
        if len(same) > 1:
            cost = mean_cost([point.cost for point in same])
            outcome = evaluate_measured(design, first.accuracy, cost, controller=controller)
            first = replace(first, outcome=outcome, cost=cost)
        found.append(first)
    return found


def mean_cost(rows: Sequence[CostRecord]) -> CostRecord:
    """The first of some rows of one design, with the mean costs of all of them."""
    stages = [_mean_stage(same) for same in zip(*(row.stages for row in rows), strict=True)]
    return replace(
        rows[0],
        latency_ms=_mean([row.latency_ms for row in rows]),
        energy_mj=_mean([row.energy_mj for row in rows]),
        stages=tuple(stages),
    )


def _mean_stage(same: Sequence[StageCost]) -> StageCost:
    latency = mean_of([stage.latency_ms for stage in same])
    return replace(same[0], latency_ms=latency, energy_mj=_mean([stage.energy_mj for stage in same]))


def _mean(statistics: Sequence[Statistic | None]) -> Statistic | None:
    known = [statistic for statistic in statistics if statistic is not None]
    return mean_of(known) if known and len(known) == len(statistics) else None


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of repeated measurements.

    Its standard error is that of their own errors, or of their scatter where that is larger: rows of
    different days differ by more than one row knows.
    """
    values = np.array([statistic.value for statistic in statistics])
    k = len(values)
    own = math.sqrt(sum(statistic.standard_error**2 for statistic in statistics)) / k
    scatter = float(values.std(ddof=1)) / math.sqrt(k) if k > 1 else 0.0
    return Statistic(float(values.mean()), max(own, scatter), sum(statistic.n for statistic in statistics))
