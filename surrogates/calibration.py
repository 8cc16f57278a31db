"""Do intervals hold what they promise?  Pure functions of predictions and what was then measured.

All take (n,) arrays.  Normal predictions are given by mean and standard deviation, others
by draws (s, n).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from .prediction import FloatArray

LEVELS = (0.5, 0.9)


@dataclass(frozen=True)
class CalibrationReport:
    """How predictions fared against measurements.

    Attributes:
        n: points.
        coverage: (level, share of measurements inside the central interval of that level).
        bias: mean of predicted minus measured, in the quantity's unit.
        rmse: root mean squared error.
        sharpness: mean width of the interval of the last level.
        crps: mean continuous ranked probability score; lower is better.
    """

    n: int
    coverage: tuple[tuple[float, float], ...]
    bias: float
    rmse: float
    sharpness: float
    crps: float


def central_interval(mean: FloatArray, sd: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    """Lower and upper end of the central interval of a normal prediction."""
    half = norm.ppf(0.5 + level / 2) * sd
    return mean - half, mean + half


def coverage(lower: FloatArray, upper: FloatArray, measured: FloatArray) -> float:
    """Share of measurements inside their intervals; NaN for no measurement."""
    if len(measured) == 0:
        return float("nan")
    return float(np.mean((lower <= measured) & (measured <= upper)))


def pit_normal(mean: FloatArray, sd: FloatArray, measured: FloatArray) -> FloatArray:
    """Probability integral transform: uniform on [0, 1] if predictions are calibrated."""
    return np.asarray(norm.cdf((measured - mean) / sd))


def pit_draws(draws: FloatArray, measured: FloatArray) -> FloatArray:
    """The same from draws (s, n): share of draws below the measurement, ties counted half."""
    return np.asarray((draws < measured).mean(axis=0) + 0.5 * (draws == measured).mean(axis=0))


def crps_normal(mean: FloatArray, sd: FloatArray, measured: FloatArray) -> FloatArray:
    """CRPS (n,) of normal predictions: Gneiting et al. (2005), eq. 5; |error| where sd is 0."""
    error = np.asarray(measured - mean, dtype=np.float64)
    safe = np.where(sd > 0, sd, 1.0)
    z = error / safe
    score = safe * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    return np.where(sd > 0, score, np.abs(error))


def crps_draws(draws: FloatArray, measured: FloatArray) -> FloatArray:
    """CRPS (n,) of the empirical distribution of draws (s, n): E|X - y| - E|X - X'| / 2.

    Gneiting & Raftery (2007), eq. 21; E|X - X'| from sorted draws.
    """
    s = len(draws)
    ordered = np.sort(draws, axis=0)
    weights = (2.0 * np.arange(1, s + 1) - s - 1) / s**2
    return np.asarray(np.abs(draws - measured).mean(axis=0) - (weights[:, None] * ordered).sum(axis=0))


def report_normal(
    mean: FloatArray, sd: FloatArray, measured: FloatArray, levels: Sequence[float] = LEVELS
) -> CalibrationReport:
    """Calibration of normal predictions."""
    intervals = [central_interval(mean, sd, level) for level in levels]
    return _report(mean, intervals, crps_normal(mean, sd, measured), measured, levels)


def report_draws(
    draws: FloatArray, measured: FloatArray, levels: Sequence[float] = LEVELS
) -> CalibrationReport:
    """Calibration of predictions given as draws (s, n), measurement noise included."""
    intervals = [
        (np.quantile(draws, 0.5 - level / 2, axis=0), np.quantile(draws, 0.5 + level / 2, axis=0))
        for level in levels
    ]
    return _report(draws.mean(axis=0), intervals, crps_draws(draws, measured), measured, levels)


def _report(
    mean: FloatArray, intervals: Sequence[tuple[FloatArray, FloatArray]], crps: FloatArray,
    measured: FloatArray, levels: Sequence[float],
) -> CalibrationReport:  # fmt: skip
    n = len(measured)
    if n == 0:
        nan = float("nan")
        return CalibrationReport(0, tuple((level, nan) for level in levels), nan, nan, nan, nan)
    error = mean - measured
    return CalibrationReport(
        n,
        tuple(
            (level, coverage(lower, upper, measured))
            for level, (lower, upper) in zip(levels, intervals, strict=True)
        ),
        float(error.mean()),
        float(np.sqrt(np.mean(error**2))),
        float(np.mean(intervals[-1][1] - intervals[-1][0])),
        float(crps.mean()),
    )
