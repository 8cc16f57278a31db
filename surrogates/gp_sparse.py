"""A Gaussian process for more rows than an exact one bears: all rows speak, through a few of them.

The fully independent training conditional (Snelson & Ghahramani 2006, "Sparse Gaussian processes using
pseudo-inputs"; section 6 of Quinonero-Candela & Rasmussen 2005): given the function at m inducing rows,
all others are independent, and what the inducing rows cannot tell about a row adds to the row's noise.
The cost is n m^2 instead of n^3.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cholesky, eigh, solve_triangular

from .gp_posterior import Posterior, chunks, learned_noise
from .kernels import HyperParameters, covariance, prior_variance
from .models import IntArray
from .prediction import FloatArray

JITTER = 1e-8
"""Added to the inducing rows' prior variance, relative to it."""


def inducing_rows(hyper: HyperParameters, x: FloatArray, n_inducing: int) -> IntArray:
    """Rows that tell most about the others: greedily the one of which the chosen ones tell least.

    Pivoted Cholesky factorisation of the prior covariance (Burt, Rasmussen & van der Wilk 2020,
    "Convergence of sparse variational inference in Gaussian processes regression", section 4.2.2).

    Args:
        x: (n, d) standardised rows.

    Returns:
        Indices of at most ``n_inducing`` rows, ascending; fewer where the others bring nothing new.
    """
    left = prior_variance(hyper, x)
    least = JITTER * float(left.max())
    factor = np.zeros((n_inducing, len(x)))
    chosen: list[int] = []
    for step in range(min(n_inducing, len(x))):
        pivot = int(np.argmax(left))
        if left[pivot] <= least:
            break
        row = covariance(hyper, x[pivot : pivot + 1], x)[0]
        row -= factor[:step, pivot] @ factor[:step]
        factor[step] = row / np.sqrt(left[pivot])
        left -= factor[step] ** 2
        left[pivot] = 0.0
        chosen.append(pivot)
    return np.sort(np.array(chosen, dtype=np.int64))


def condition_on_inducing(
    x: FloatArray, target: FloatArray, known: FloatArray, hyper: HyperParameters,
    y_mean: float, y_scale: float, inducing: IntArray,
) -> Posterior:  # fmt: skip
    """Posterior of one output through inducing rows, given its hyper-parameters.

    Args:
        x: (n, d) standardised rows; target: (n,) standardised; known: (n,) noise variance in
            standardised units.
        inducing: indices of the inducing rows.
    """
    z = np.ascontiguousarray(x[inducing])
    prior = covariance(hyper, z, z)
    own = prior_variance(hyper, z)
    np.fill_diagonal(prior, own + JITTER * own.max())
    root = cholesky(prior, lower=True)
    precision, projected = np.zeros_like(prior), np.zeros(len(z))
    for rows in chunks(len(x)):
        # (m, n): the rows in a basis in which the function at the inducing rows is white.
        told = solve_triangular(root, covariance(hyper, z, x[rows]), lower=True, check_finite=False)
        untold = np.maximum(prior_variance(hyper, x[rows]) - np.einsum("ij,ij->j", told, told), 0.0)
        noise = known[rows] + learned_noise(hyper) + untold
        precision += (told / noise) @ told.T
        projected += told @ ((target[rows] - hyper.constant) / noise)
    # Posterior precision of the white function: I + precision = Q (1 + lambda) Q'.
    eigenvalues, directions = eigh(precision)
    eigenvalues = np.maximum(eigenvalues, 0.0)
    white = solve_triangular(root, directions, lower=True, trans="T", check_finite=False)
    alpha = white @ ((directions.T @ projected) / (1.0 + eigenvalues))
    whitening = np.ascontiguousarray((white * np.sqrt(eigenvalues / (1.0 + eigenvalues))).T)
    typical = y_scale**2 * (learned_noise(hyper) + float(np.median(known)))
    return Posterior(
        z, np.ascontiguousarray(alpha), whitening, 1.0 / (1.0 + eigenvalues), True,
        hyper, y_mean, y_scale, typical, np.empty((len(z), 0)), np.zeros(len(z)),
    )  # fmt: skip
