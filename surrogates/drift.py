"""Has a device drifted?  New measurements against what older predictors said of them.

Everything here is a pure function of arrays: n rows, s joint draws of the older predictors for them
(noise of a measurement included), and the network that each row is of.  Rows of one network share
the predictors' error about it, so evidence counts networks, not rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.stats import t as student_t

from .calibration import coverage
from .models import IntArray
from .prediction import FloatArray

LEVEL = 0.05
"""Share of devices that have not moved for which a shift is called found (per quantity)."""

SMALL_PERCENT = 3.0
"""A shift below this is called small: a measuring session lets its own anchor move as much."""

WIDE_PERCENT = 10.0
"""A shift whose interval reaches further than this to either side is poorly known: a verdict says so."""

SCATTER_LEVEL = 0.01
"""The same for scatter."""

MUCH_SCATTER = 1.5
"""Scatter below this goes unmentioned: predictors are a little too sure of themselves more often than devices change."""


@dataclass(frozen=True, slots=True)
class PredictionErrors:
    """How far predictions were off, in percent of what was predicted.

    Attributes:
        n_rows: rows judged.
        mape: mean absolute error, percent.
        bias: mean error, percent; positive = measured more than predicted.
        coverage_90: share of rows inside the central 90 % interval.
    """

    n_rows: int
    mape: float
    bias: float
    coverage_90: float

    @classmethod
    def of(cls, measured: FloatArray, draws: FloatArray) -> Self:
        """Judge (n,) measured values by (s, n) draws of their predictions; the median is the prediction."""
        low, middle, high = np.quantile(draws, (0.05, 0.5, 0.95), axis=0)
        off = 100.0 * (measured / middle - 1.0)
        return cls(len(measured), float(np.abs(off).mean()), float(off.mean()), coverage(low, high, measured))


@dataclass(frozen=True, slots=True)
class DriftTest:
    """Whether older predictors still hold, for one quantity.

    Attributes:
        n_rows, n_networks: evidence.
        shift_percent, low_percent, high_percent: measured over predicted, and its 95 % interval.
        p_shift: probability of such a shift, or a larger one, if the device has not moved; NaN for
            fewer than two networks.
        scatter: root mean square of the residuals about their shift, in units of what was predicted.
        p_scatter: probability of so much scatter, or more, if the device has not changed.
    """

    n_rows: int
    n_networks: int
    shift_percent: float
    low_percent: float
    high_percent: float
    p_shift: float
    scatter: float
    p_scatter: float

    @property
    def found(self) -> bool:
        """Whether a shift is found, small or not."""
        return self.p_shift < LEVEL

    @property
    def drifted(self) -> bool:
        """Whether a shift is found that is not small."""
        return self.found and abs(self.shift_percent) >= SMALL_PERCENT

    def verdict(self, quantity: str) -> str:
        """In words, such as ``drift: energy +12.0 % (95 % interval +10.1 .. +13.9 %)``."""
        said = (
            f"{quantity} {self.shift_percent:+.1f} % "
            f"(95 % interval {self.low_percent:+.1f} .. {self.high_percent:+.1f} %)"
        )
        if math.isnan(self.p_shift):
            words = f"cannot tell: rows of {self.n_networks} network; two at least"
        elif self.drifted:
            words = f"drift: {said}"
        elif self.found:
            words = f"shift found but small: {said}"
        else:
            words = f"no drift found: {said}"
            if self.high_percent - self.low_percent > 2 * WIDE_PERCENT:
                words += ", but the predictors know these networks too little to see a smaller one"
        if self.p_scatter < SCATTER_LEVEL and self.scatter >= MUCH_SCATTER:
            words += f"; rows scatter {self.scatter:.1f} times as much as predicted"
        return words


def drift_test(measured: FloatArray, draws: FloatArray, networks: IntArray) -> DriftTest:
    """Test whether rows are what older predictors said of them.

    The residual of a row is log(measured / predicted).  The shift is the mean over networks of each
    network's mean residual.  Its variance is taken as the larger of two: what the spread between
    networks shows (cluster-robust, as if networks were a sample), and what the predictors claim of
    their own joint error about all these rows, which networks may share.  The ratio is compared with
    Student's t with one degree of freedom less than networks.  Scatter is tested by the draws themselves:
    each is a device that the predictors hold possible.

    Args:
        measured: (n,) positive values.
        draws: (s, n) joint draws of the same, positive, noise included.
        networks: (n,) index of the network of each row.
    """
    logs = np.log(draws)
    centre = logs.mean(axis=0)
    residual, simulated = np.log(measured) - centre, logs - centre
    _, member = np.unique(networks, return_inverse=True)
    n_networks = int(member.max()) + 1
    counts = np.bincount(member)
    weights = 1.0 / (counts[member] * n_networks)
    shift = float(weights @ residual)
    means = np.bincount(member, weights=residual) / counts
    p_shift, half = math.nan, math.inf
    if n_networks > 1:
        between = float(means.var(ddof=1)) / n_networks
        error = math.sqrt(max(between, float((simulated @ weights).var(ddof=1))))
        degrees = n_networks - 1
        p_shift = 2.0 * float(student_t.sf(abs(shift) / error, degrees))
        half = float(student_t.ppf(0.975, degrees)) * error
    scatter, p_scatter = _scatter(residual, simulated, weights)
    return DriftTest(
        len(measured), n_networks, _percent(shift), _percent(shift - half), _percent(shift + half), p_shift,
        scatter, p_scatter,
    )  # fmt: skip


def _scatter(residual: FloatArray, simulated: FloatArray, weights: FloatArray) -> tuple[float, float]:
    """Scatter about the shift in units of what was predicted, and how probable as much or more is."""
    sd = np.maximum(simulated.std(axis=0, ddof=1), 1e-12)

    def mean_square(rows: FloatArray) -> FloatArray:
        about = (rows - (rows @ weights)[:, None]) / sd
        return np.asarray((about**2).mean(axis=1))

    expected = mean_square(simulated)
    seen = float(mean_square(residual[None, :])[0])
    p = (1.0 + float(np.count_nonzero(expected >= seen))) / (1.0 + len(expected))
    return math.sqrt(seen / max(float(expected.mean()), 1e-300)), p


def _percent(log_ratio: float) -> float:
    return 100.0 * math.expm1(log_ratio) if log_ratio < 700 else math.inf
