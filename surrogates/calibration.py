"""Do intervals hold what they promise?  Pure functions of (n,) predictions and what was then measured."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from .prediction import FloatArray


def central_interval(mean: FloatArray, sd: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    """Lower and upper end of the central interval of a normal prediction."""
    half = norm.ppf(0.5 + level / 2) * sd
    return mean - half, mean + half


def coverage(lower: FloatArray, upper: FloatArray, measured: FloatArray) -> float:
    """Share of measurements inside their intervals; NaN for no measurement."""
    if len(measured) == 0:
        return float("nan")
    return float(np.mean((lower <= measured) & (measured <= upper)))
