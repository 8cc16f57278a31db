"""The loop against the best baseline, at equal numbers of measurements and with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .content import HypervolumeTrace
from .figures import ASKED_FOR, LOOP, SEED

Z_95 = 1.96
"""Half the width of a central 95 % interval, in standard errors of a normal value."""


@dataclass(frozen=True, slots=True)
class HypervolumeGain:
    """How much more hypervolume the loop has than a baseline.

    Attributes:
        n_measurements: of either, the seeds included.
        relative: (loop - baseline) / baseline.
        half_width_95: of the 95 % interval of ``relative``.
    """

    baseline: str
    n_measurements: int
    relative: float
    half_width_95: float


def hypervolume_gain(traces: Sequence[HypervolumeTrace]) -> HypervolumeGain | None:
    """The smallest gain of the loop over any baseline, each at the largest count both traces have.

    The standard error of a trace's last value stands in for that of an earlier one.  The two
    errors are taken as independent; the seeds that both share make the interval too wide rather
    than too narrow.

    Returns:
        ``None`` if the loop or every baseline lacks a value above 0 at a common count, or if a
        standard error of the loop or of the baseline that decides is not known.
    """
    loop = next((trace for trace in traces if trace.strategy == LOOP), None)
    if loop is None:
        return None
    gains = [_gain(loop, trace) for trace in traces if trace.strategy not in (LOOP, SEED, ASKED_FOR)]
    least = min((gain for gain in gains if gain is not None), key=lambda gain: gain.relative, default=None)
    return least if least is not None and math.isfinite(least.half_width_95) else None


def _gain(loop: HypervolumeTrace, other: HypervolumeTrace) -> HypervolumeGain | None:
    common = set(loop.n_measurements) & set(other.n_measurements)
    if not common:
        return None
    n = max(common)
    own, theirs = (trace.hypervolume[trace.n_measurements.index(n)] for trace in (loop, other))
    if theirs <= 0:
        return None
    errors = [
        math.nan if trace.hypervolume_standard_error is None else trace.hypervolume_standard_error
        for trace in (loop, other)
    ]
    return HypervolumeGain(other.strategy, n, own / theirs - 1, Z_95 * math.hypot(*errors) / theirs)
