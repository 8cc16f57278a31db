"""Random Fourier features: Gaussian-process prior draws that are functions of the row.

Rahimi & Recht (2007): a stationary kernel is the mean of cos(w.(x - x')) over frequencies w
drawn from its spectral density.  Two refinements make draws conditioned on data keep the
posterior's variance with few features:

* What data leave open between close rows lies in the high frequencies, which the spectral
  density of Matern-5/2 seldom draws: half of the frequencies come from a Cauchy density,
  and importance weights (at most 2) correct for it.
* Frequencies come from a scrambled Sobol sequence.
"""

from __future__ import annotations

import hashlib

import numpy as np
from scipy.special import gammaln
from scipy.stats import chi2, norm, qmc

from .prediction import FloatArray

MATERN_DOF = 5.0  # The spectral density of Matern-5/2 is a Student t with 2 * 5/2 degrees of freedom.
TAIL_DOF = 1.0


def _log_student_density(squared_norm: FloatArray, dof: float, dimension: int) -> FloatArray:
    constant = gammaln((dof + dimension) / 2) - gammaln(dof / 2) - dimension / 2 * np.log(dof * np.pi)
    return np.asarray(constant - (dof + dimension) / 2 * np.log1p(squared_norm / dof))


class MaternPrior:
    """s draws from a zero-mean, unit-variance Matern-5/2 process with length scale 1.

    Args:
        n_features: frequencies, a power of two; each gives a sine and a cosine.
        n_inputs: input dimension d; callers divide their inputs by their length scales.
        n_draws: s.
        rng: the only source of randomness.
    """

    def __init__(self, n_features: int, n_inputs: int, n_draws: int, rng: np.random.Generator) -> None:
        uniform = qmc.Sobol(n_inputs + 1, scramble=True, rng=rng).random(n_features)
        uniform = np.clip(uniform, 1e-12, 1 - 1e-12)
        dof = np.where(np.arange(n_features) % 2 == 0, MATERN_DOF, TAIL_DOF)
        frequencies = norm.ppf(uniform[:, 1:]) * np.sqrt(dof / chi2.ppf(uniform[:, 0], dof))[:, None]
        squared_norm = (frequencies**2).sum(axis=1)
        wanted = _log_student_density(squared_norm, MATERN_DOF, n_inputs)
        tail = _log_student_density(squared_norm, TAIL_DOF, n_inputs)
        importance = np.exp(wanted - np.logaddexp(wanted, tail) + np.log(2.0))
        importance /= importance.mean()
        amplitude = np.sqrt(importance / n_features)
        self.frequencies: FloatArray = np.ascontiguousarray(frequencies.T)
        self.cosine_weights: FloatArray = rng.standard_normal((n_features, n_draws)) * amplitude[:, None]
        self.sine_weights: FloatArray = rng.standard_normal((n_features, n_draws)) * amplitude[:, None]

    def __call__(self, x: FloatArray) -> FloatArray:
        """Evaluate all draws at rows ``x`` (n, d), already divided by length scales; returns (n, s)."""
        angle = x @ self.frequencies
        return np.asarray(np.cos(angle) @ self.cosine_weights + np.sin(angle) @ self.sine_weights)


class CategoricalPrior:
    """s draws from a zero-mean, unit-variance process of categories, with random features.

    The kernel is the product over columns of q_j + (1 - q_j) [a_j = b_j] with q_j = exp(-1 / l_j).
    A feature picks every column with probability 1 - q_j, and is the product of a random sign per
    category of the columns picked: the mean of the product of two rows' signs is the kernel, and
    every row has variance one exactly.  A category never seen before gets signs from its value.

    Args:
        scales: (d,) length scales l_j.
        n_features: of which each draw is a sum, a power of two.
        n_draws: s.
        rng: the only source of randomness.
    """

    def __init__(self, scales: FloatArray, n_features: int, n_draws: int, rng: np.random.Generator) -> None:
        uniform = qmc.Sobol(len(scales), scramble=True, rng=rng).random(n_features)
        self._picked = (uniform < -np.expm1(-1.0 / scales)).T
        self._seed = int(rng.integers(2**62))
        self._weights: FloatArray = rng.standard_normal((n_features, n_draws)) / np.sqrt(n_features)

    def __call__(self, x: FloatArray) -> FloatArray:
        """Evaluate all draws at rows ``x`` (n, d); returns (n, s)."""
        product = np.ones((len(x), len(self._weights)))
        for column, picked in enumerate(self._picked):
            levels, level_of_row = np.unique(x[:, column], return_inverse=True)
            signs = np.ones((len(levels), len(picked)))
            for level, value in zip(signs, levels, strict=True):
                # Adding zero makes one category of 0 and -0, which compare equal.
                bits = int(np.float64(value + 0.0).view(np.uint64))
                rng = np.random.default_rng([self._seed, column, bits])
                level[picked] = rng.choice((-1.0, 1.0), size=len(picked))[picked]
            product *= signs[level_of_row]
        return np.asarray(product @ self._weights)


class LinearPrior:
    """s draws of linear functions with independent standard normal weights.

    Args:
        n_inputs: input dimension d; callers divide their inputs by their length scales.
        n_draws: s.
        rng: the only source of randomness.
    """

    def __init__(self, n_inputs: int, n_draws: int, rng: np.random.Generator) -> None:
        self._weights: FloatArray = rng.standard_normal((n_inputs, n_draws))

    def __call__(self, x: FloatArray) -> FloatArray:
        """Evaluate all draws at rows ``x`` (n, d), already divided by length scales; returns (n, s)."""
        return np.asarray(x @ self._weights)


def row_noise(x: FloatArray, n_draws: int, seed: int) -> FloatArray:
    """Standard normal numbers (n, s) that depend on the seed and each row's values alone.

    The same row gets the same numbers in whatever batch it stands.
    """
    noise = np.empty((len(x), n_draws))
    for i, row in enumerate(np.ascontiguousarray(x, dtype=np.float64)):
        digest = hashlib.blake2b(row.tobytes(), digest_size=8).digest()
        noise[i] = np.random.default_rng([seed, int.from_bytes(digest, "little")]).standard_normal(n_draws)
    return noise
