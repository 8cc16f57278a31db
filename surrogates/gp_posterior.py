"""The posterior of one output of a Gaussian process, in the form that is quick to predict with.

Mean and variance at a row are  c + k . alpha  and  prior - |W k|^2,  with k the covariances of
the row with the rows that the posterior is written in: all training rows (here), or a few inducing
ones (``gp_sparse``).  W is the inverse Cholesky factor, so that a prediction is a matrix product
instead of a triangular solve; of its half that is zero most is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from .gp_fit import MIN_NOISE
from .kernels import HyperParameters, PriorDraws, covariance, prior_variance
from .prediction import DrawsBesideMean, FloatArray

CHUNK_ROWS = 512
"""Rows per block of a prediction: large enough for BLAS, small enough for the cache."""

_TRIANGLE_BLOCK = 64

JITTER = 1e-8
"""Added to the variances of joint draws, as a share of the prior's."""


@dataclass(frozen=True)
class Posterior:
    """One output's posterior in standardised units.

    Attributes:
        x: (k, d) standardised rows that it is written in.
        alpha: (k,) weights of the mean of the whole target.
        whitening: (k, k) W; lower triangular where ``x`` are the training rows.
        left_over: (k,) where ``x`` are the training rows, their noise variance; where they are
            inducing rows, the share of each direction's variance that the data leave open.
        inducing: whether ``x`` are inducing rows.
        hyper: of the prior.
        y_mean, y_scale: of the target.
        typical_noise: variance of a new measurement's noise, in the target's units.
        slopes: (k, p) of what else moves the target at ``x``, in its units (see :mod:`.slopes`); p may be 0.
        taken_off: (k,) known part of the target at ``x``, in its units, that is no more the process's.
    """

    x: FloatArray
    alpha: FloatArray
    whitening: FloatArray
    left_over: FloatArray
    inducing: bool
    hyper: HyperParameters
    y_mean: float
    y_scale: float
    typical_noise: float
    slopes: FloatArray
    taken_off: FloatArray

    @cached_property
    def weights(self) -> FloatArray:
        """(k,) of the mean, of what is left of the target."""
        off = self.whitening.T @ (self.whitening @ self.taken_off)
        return np.asarray(self.alpha - off / self.y_scale)

    @cached_property
    def successive_errors(self) -> FloatArray:
        """(k,) errors of the training rows, each predicted from those before it, in predicted standard deviations.

        With C = L L' the covariance of the target, noise included, they are L^-1 (y - constant) = L' alpha: each
        entry is what a row differs by from its mean given the rows above it, over its standard deviation given them.
        Where ``x`` are inducing rows there are none.
        """
        return np.asarray(
            solve_triangular(self.whitening, self.alpha, lower=True, trans="T", check_finite=False)
        )

    @cached_property
    def pull(self) -> FloatArray:
        """(p,) S' C^-1 (y - mean): where the data pull deviations along the slopes."""
        return np.asarray(self.slopes.T @ self.alpha) / self.y_scale

    @cached_property
    def told(self) -> FloatArray:
        """(p, p) S' C^-1 S: what the data tell of deviations along the slopes."""
        white = self.whitening @ self.slopes
        return np.asarray(white.T @ white) / self.y_scale**2

    @cached_property
    def absorbing(self) -> FloatArray:
        """(k, p) weights of what the data take up of the slopes."""
        return np.asarray(self.whitening.T @ (self.whitening @ self.slopes))

    def moments(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and variance (n,), in the target's units, at standardised rows (n, d)."""
        mean, explained = np.empty(len(x)), np.empty(len(x))
        for rows in chunks(len(x)):
            cross = covariance(self.hyper, x[rows], self.x)
            mean[rows] = cross @ self.weights
            explained[rows] = self._explained(cross)
        prior = prior_variance(self.hyper, x)
        # The floor keeps rounding from a negative variance, also where a linear prior has none.
        variance = np.maximum(prior - explained, 1e-12 * (prior + MIN_NOISE))
        return self._in_units(mean), self.y_scale**2 * variance

    def mean(self, x: FloatArray) -> FloatArray:
        """Mean (n,), in the target's units, at standardised rows (n, d)."""
        parts = [covariance(self.hyper, x[rows], self.x) @ self.weights for rows in chunks(len(x))]
        return self._in_units(np.concatenate(parts) if parts else np.zeros(0))

    def _in_units(self, value: FloatArray) -> FloatArray:
        return self.y_mean + self.y_scale * (self.hyper.constant + value)

    def _explained(self, cross: FloatArray) -> FloatArray:
        """|W k|^2 (n,) of covariances (n, k)."""
        size = len(self.x)
        step = size if self.inducing else _TRIANGLE_BLOCK
        total = np.zeros(len(cross))
        for start in range(0, size, step):
            stop = min(start + step, size)
            seen = size if self.inducing else stop
            part = cross[:, :seen] @ self.whitening[start:stop, :seen].T
            total += np.einsum("ij,ij->i", part, part)
        return total

    def draws(self, n_features: int, n_draws: int, rng: np.random.Generator) -> PosteriorDraws:
        """s functions drawn from it."""
        return PosteriorDraws(self, n_features, n_draws, rng)

    def joint_draws(self, x: FloatArray, n_draws: int, rng: np.random.Generator) -> FloatArray:
        """(s, n) exact joint draws, in the target's units, at standardised rows (n, d): one Cholesky factor of them.

        Cubic in n and of these rows alone: for a pool that is asked once.  Slopes are not drawn along.
        """
        cross = covariance(self.hyper, x, self.x)
        white = cross @ self.whitening.T
        left = covariance(self.hyper, x, x) - white @ white.T
        # Rows that are alike, or measured, leave it singular but for rounding.
        size = float(prior_variance(self.hyper, x).mean()) + MIN_NOISE
        left[np.diag_indices(len(x))] += JITTER * size
        root = cholesky(left, lower=True, check_finite=False)
        beside = rng.standard_normal((n_draws, len(x))) @ root.T
        return np.asarray(self._in_units(cross @ self.weights) + self.y_scale * beside)


class PosteriorDraws:
    """Draws by pathwise conditioning: a prior draw plus the update that makes it meet the data.

    Wilson et al. (2020), "Efficiently sampling functions from Gaussian process posteriors", eq. 13:
    f(x) + k(x, X) (K + S)^-1 (y - f(X) - e), with f a prior draw from random features and e a draw of
    the noise with covariance S.  With M = W' W in place of (K + S)^-1 the same holds for inducing rows,
    if what is drawn beside f has covariance M - M K M.
    """

    def __init__(self, posterior: Posterior, n_features: int, n_draws: int, rng: np.random.Generator) -> None:
        self._posterior = posterior
        self._prior = PriorDraws(posterior.hyper, n_features, n_draws, rng)
        w = posterior.whitening
        normal = rng.standard_normal((len(posterior.x), n_draws)) * np.sqrt(posterior.left_over)[:, None]
        chance = normal if posterior.inducing else w @ normal
        update = w.T @ (chance - w @ self._prior(posterior.x))
        self._update: FloatArray = np.ascontiguousarray(posterior.weights[:, None] + update)

    def __call__(self, x: FloatArray) -> FloatArray:
        """All draws (n, s), in the target's units, at standardised rows (n, d)."""
        return self.beside_mean(x).draws.T

    def beside_mean(self, x: FloatArray) -> DrawsBesideMean:
        """All draws, the mean, and what the data take up of the slopes, at standardised rows (n, d)."""
        posterior = self._posterior
        draws, mean = np.empty((self._update.shape[1], len(x))), np.empty(len(x))
        absorbed = np.empty((len(x), posterior.slopes.shape[1]))
        for rows in chunks(len(x)):
            cross = covariance(posterior.hyper, x[rows], posterior.x)
            draw = self._prior(x[rows])
            draw += cross @ self._update
            draws[:, rows] = posterior._in_units(draw).T
            mean[rows] = posterior._in_units(cross @ posterior.weights)
            absorbed[rows] = cross @ posterior.absorbing
        return DrawsBesideMean(draws, mean, absorbed)


def chunks(n_rows: int) -> Iterator[slice]:
    """Slices of at most :data:`CHUNK_ROWS` rows."""
    return (slice(start, start + CHUNK_ROWS) for start in range(0, n_rows, CHUNK_ROWS))


def condition(
    x: FloatArray,
    target: FloatArray,
    known: FloatArray,
    hyper: HyperParameters,
    y_mean: float,
    y_scale: float,
) -> Posterior:
    """Exact posterior of one output given its hyper-parameters.

    Args:
        x: (n, d) standardised rows; target: (n,) standardised; known: (n,) noise variance in
            standardised units.
    """
    noise = known + learned_noise(hyper)
    total = covariance(hyper, x, x)
    np.fill_diagonal(total, prior_variance(hyper, x) + noise)
    factor = cholesky(total, lower=True)
    whitening = np.ascontiguousarray(
        np.tril(solve_triangular(factor, np.eye(len(x)), lower=True, check_finite=False))
    )
    alpha = whitening.T @ (whitening @ (target - hyper.constant))
    typical = y_scale**2 * (learned_noise(hyper) + float(np.median(known)))
    return Posterior(
        np.ascontiguousarray(x), alpha, whitening, noise, False, hyper, y_mean, y_scale, typical,
        np.empty((len(x), 0)), np.zeros(len(x)),
    )  # fmt: skip


def learned_noise(hyper: HyperParameters) -> float:
    """Noise variance that is learned on top of what is known, never quite zero."""
    return max(hyper.noise_variance, MIN_NOISE)
