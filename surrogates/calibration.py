"""Do predictive distributions hold what they promise?  Pure functions of predictions and what was then measured.

Shapes: n predictions, each a normal (mean, standard deviation).
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


def pit_normal(mean: FloatArray, sd: FloatArray, measured: FloatArray) -> FloatArray:
    """Probability integral transform (n,): what share of a normal prediction lies below the measurement."""
    return np.asarray(norm.cdf(measured, loc=mean, scale=sd))


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
        n, nan = len(measured), math.nan
        inside = {level: coverage(*central_interval(mean, sd, level), measured) for level in LEVELS}
        if n == 0:
            return cls(0, 0, inside, nan, nan, nan, nan, nan, (nan,) * N_PIT_BINS, nan, nan)
        low, high = central_interval(mean, sd, 0.9)
        z, pit = (measured - mean) / sd, pit_normal(mean, sd, measured)
        counts, _ = np.histogram(pit, bins=N_PIT_BINS, range=(0.0, 1.0))
        n_groups = n if groups is None else len(np.unique(groups))
        distance = float(kstest(pit, "uniform").statistic)
        return cls(
            n, n_groups, inside, float((high - low).mean()), float(sd.mean()),
            float(crps_normal(mean, sd, measured).mean()), float(z.mean()),
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
