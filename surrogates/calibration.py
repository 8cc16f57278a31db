"""Do predictive distributions hold what they promise?  Pure functions of predictions and what was then measured.

Shapes: n predictions, s draws.  A prediction is a normal (mean, standard deviation), or a set of draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstest, kstwo, norm

from .prediction import FloatArray

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Nominal levels of the central intervals that are checked."""

N_PIT_BINS = 10

MIN_JUDGED = 20
"""Fewer independent measurements than this say little: of 20 right 90 % intervals, 15 to 20 hold in 95 % of cases."""


def central_interval(mean: FloatArray, sd: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    """Lower and upper end of the central interval of a normal prediction."""
    half = norm.ppf(0.5 + level / 2) * sd
    return mean - half, mean + half


def coverage(lower: FloatArray, upper: FloatArray, measured: FloatArray) -> float:
    """Share of measurements inside their intervals; NaN for no measurement."""
    if len(measured) == 0:
        return float("nan")
    return float(np.mean((lower <= measured) & (measured <= upper)))


def crps_normal(mean: FloatArray, sd: FloatArray, measured: FloatArray) -> FloatArray:
    """Continuous ranked probability score (n,) of normal predictions, in the unit of the values; 0 is best.

    Gneiting & Raftery 2007, equation 21; for a standard deviation of 0 the absolute error, its limit.
    """
    error = np.asarray(measured - mean, dtype=np.float64)
    z = np.divide(error, sd, out=np.zeros_like(error), where=np.asarray(sd) > 0)
    score = sd * (z * (2.0 * norm.cdf(z) - 1.0) + 2.0 * norm.pdf(z) - 1.0 / math.sqrt(math.pi))
    return np.where(np.asarray(sd) > 0, score, np.abs(error))


def crps_draws(draws: FloatArray, measured: FloatArray) -> FloatArray:
    """The same (n,) of predictions by draws (s, n), s >= 2: E|X - y| - E|X - X'| / 2.

    The second mean is over pairs of different draws, which makes the score right on average for any s.
    """
    s = len(draws)
    rank = np.arange(1, s + 1)[:, None]
    # Sum over pairs of |x_i - x_j| from sorted values: each enters 2 rank - s - 1 times.
    pairs = 2.0 * ((2 * rank - s - 1) * np.sort(draws, axis=0)).sum(axis=0)
    return np.asarray(np.abs(draws - measured).mean(axis=0) - pairs / (2.0 * s * (s - 1)))


def pit_normal(mean: FloatArray, sd: FloatArray, measured: FloatArray) -> FloatArray:
    """Probability integral transform (n,): what share of a normal prediction lies below the measurement."""
    return np.asarray(norm.cdf(measured, loc=mean, scale=sd))


def pit_draws(draws: FloatArray, measured: FloatArray) -> FloatArray:
    """The same (n,) of predictions by draws (s, n); between two draws halfway, so that it is never 0 or 1."""
    below = (draws < measured).sum(axis=0) + 0.5 * (draws == measured).sum(axis=0)
    return np.asarray((below + 0.5) / (len(draws) + 1.0))


@dataclass(frozen=True)
class CalibrationSummary:
    """How good n predictive distributions were.

    Attributes:
        n: measurements judged; with none, everything else is NaN.
        n_groups: groups among them that err alike, such as the rows of one backbone; as many independent
            measurements are counted on in bands and tests, which is cautious: no group says less than one row.
        coverage: by nominal level, share of measurements inside the central interval.
        mean_width_90: of the central 90 % intervals, in the unit of the values.
        mean_sd: of the predictive standard deviations (sharpness; smaller is better at equal coverage).
        crps: mean continuous ranked probability score, in the unit of the values.
        bias_sd: mean of (measured - predicted) / predicted standard deviation.
        spread_sd: standard deviation of the same; 1 where the predicted ones are right.
        pit: shares of the probability integral transform in :data:`N_PIT_BINS` equal bins; equal shares are right.
        pit_distance: largest distance of the transform's distribution from the uniform one
            (Kolmogorov-Smirnov).
        pit_p: probability of as large a distance, or a larger one, of right predictions that err independently.
    """

    n: int
    n_groups: int
    coverage: Mapping[float, float]
    mean_width_90: float
    mean_sd: float
    crps: float
    bias_sd: float
    spread_sd: float
    pit: tuple[float, ...]
    pit_distance: float
    pit_p: float

    @classmethod
    def of_normal(
        cls, mean: FloatArray, sd: FloatArray, measured: FloatArray, groups: NDArray[np.int64] | None = None
    ) -> Self:
        """Judge normal predictions (n,), standard deviations above 0, by what was measured (n,).

        Args:
            groups: (n,) rows of one group err alike; ``None`` = each by itself.
        """
        inside = {level: coverage(*central_interval(mean, sd, level), measured) for level in LEVELS}
        low, high = central_interval(mean, sd, 0.9)
        pit = pit_normal(mean, sd, measured)
        return cls._of(
            inside, high - low, sd, crps_normal(mean, sd, measured), (measured - mean) / sd, pit, groups
        )

    @classmethod
    def of_draws(cls, draws: FloatArray, measured: FloatArray) -> Self:
        """Judge predictions by draws (s, n), noise of a measurement included, by what was measured (n,)."""
        ends = {level: np.quantile(draws, (0.5 - level / 2, 0.5 + level / 2), axis=0) for level in LEVELS}
        inside = {level: coverage(low, high, measured) for level, (low, high) in ends.items()}
        sd = draws.std(axis=0, ddof=1)
        z = (measured - draws.mean(axis=0)) / sd
        width = ends[0.9][1] - ends[0.9][0]
        return cls._of(inside, width, sd, crps_draws(draws, measured), z, pit_draws(draws, measured))

    @classmethod
    def _of(
        cls, inside: Mapping[float, float], width: FloatArray, sd: FloatArray, crps: FloatArray,
        z: FloatArray, pit: FloatArray, groups: NDArray[np.int64] | None = None,
    ) -> Self:  # fmt: skip
        n, nan = len(z), math.nan
        if n == 0:
            return cls(0, 0, dict(inside), nan, nan, nan, nan, nan, (nan,) * N_PIT_BINS, nan, nan)
        counts, _ = np.histogram(pit, bins=N_PIT_BINS, range=(0.0, 1.0))
        n_groups = n if groups is None else len(np.unique(groups))
        distance = float(kstest(pit, "uniform").statistic)
        return cls(
            n, n_groups, dict(inside), float(width.mean()), float(sd.mean()), float(crps.mean()), float(z.mean()),
            float(z.std(ddof=1)) if n > 1 else nan, tuple(float(c) / n for c in counts),
            distance, float(kstwo.sf(distance, n_groups)),
        )  # fmt: skip

    def coverage_band(self, level: float) -> tuple[float, float]:
        """Central 95 % of the coverages that right intervals of a level would show on so many groups (binomial)."""
        if self.n == 0:
            return 0.0, 1.0
        from scipy.stats import binom

        low, high = binom.ppf((0.025, 0.975), self.n_groups, level)
        return float(low) / self.n_groups, float(high) / self.n_groups

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping; coverage by level in percent, such as ``"90"``."""
        return asdict(self) | {
            "coverage": {f"{100 * level:g}": share for level, share in self.coverage.items()},
            "pit": list(self.pit),
        }
