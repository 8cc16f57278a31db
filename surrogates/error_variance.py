"""What held-out errors say: how much of them is the model's, how much is noise that nobody could predict."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.spatial import cKDTree

from .prediction import FloatArray

TYPICAL_MISFIT = 0.05
"""Error variance, in units of the target's, that models are taken to have where weights are needed
before any error is known."""


def fit_variance(
    residual: FloatArray, spread: FloatArray, known: FloatArray, max_factor: float
) -> tuple[float, float]:
    """Factor a on the member variance and added variance b by maximum likelihood.

    Args:
        residual, spread, known: (n,) out-of-fold error, member variance, known noise variance.

    Returns:
        (a, b) maximising the likelihood of residual ~ Normal(0, a spread + b + known), with a
        on a grid of 0..max_factor and b at least 1e-6.
    """

    def loss(log_b: float, factor: float) -> float:
        variance = factor * spread + np.exp(log_b) + known
        return float(np.sum(np.log(variance) + residual**2 / variance))

    best: tuple[float, float, float] | None = None
    for factor in np.linspace(0.0, max_factor, 7):
        found = minimize_scalar(loss, bounds=(np.log(1e-6), np.log(10.0)), args=(factor,), method="bounded")
        if best is None or found.fun < best[0]:
            best = (float(found.fun), float(factor), float(np.exp(found.x)))
    assert best is not None
    return best[1], best[2]


def gamma_test(x: FloatArray, residual: FloatArray, known: FloatArray | None = None) -> tuple[float, float]:
    """Noise variance of a smooth function's values beyond what is known, and a length scale for it.

    Half the mean squared difference of values between nearest neighbours (Stefansson, Koncar
    & Jones 1997, the first-neighbour form), less the known noise of the two; pairs that are known
    to be noisy count less.  The length scale is twice the median distance between neighbours that
    differ.

    Args:
        x: (n, d) standardised inputs, n >= 2; residual, known: (n,).
    """
    distance, neighbour = cKDTree(x).query(x, k=2)
    # With repeats, either of the two may be the row itself.
    rows = np.arange(len(x))
    other = np.where(neighbour[:, 1] == rows, neighbour[:, 0], neighbour[:, 1])
    of_pair = np.zeros(len(x)) if known is None else 0.5 * (known + known[other])
    beyond = 0.5 * (residual - residual[other]) ** 2 - of_pair
    noise = float(np.average(beyond, weights=1.0 / (TYPICAL_MISFIT + of_pair)))
    apart = distance[:, 1][distance[:, 1] > 1e-9]
    return noise, 2.0 * float(np.median(apart)) if len(apart) else 1.0
