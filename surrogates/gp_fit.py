"""Hyper-parameters of the Gaussian process: the maximum of their posterior density, by L-BFGS.

The likelihood and its gradient are written out for the three kernels, which is several times quicker than
differentiating automatically; a test compares both with GPyTorch's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, lapack
from scipy.optimize import minimize

from .kernels import Component, HyperParameters, typical_length_scale
from .models import IntArray
from .prediction import FloatArray

MIN_NOISE = 1e-6
"""Smallest noise variance, in units of the target's variance."""

MIN_VARIANCE = 1e-4
"""Smallest signal variance of a component."""

MIN_SCALE = 1e-2
"""Smallest length scale; of a categorical component times its number of columns."""

SCALE_SPREAD = 0.8
"""Standard deviation of the logarithm of a length scale."""

NOISE_PRIOR = (-6.0, 2.0)
"""Mean and standard deviation of the logarithm of the learned noise variance."""

VARIANCE_PRIOR = (2.0, 0.5)
"""Shape and rate of the gamma prior of a signal variance."""

WORST = 1e10
"""Negative log density per row where there is none; finite, so that a line search can turn back from it."""


def fit_hyper_parameters(
    x: FloatArray, target: FloatArray, known: FloatArray, start: HyperParameters, max_iterations: int
) -> HyperParameters:
    """Maximise the posterior density of the hyper-parameters.

    Priors, for standardised data: length scales log-normal around 2 sqrt(d) with scale 0.8, so
    that features without influence fade as their number grows (in the manner of Hvarfner et
    al. 2024, but tighter: with few backbones a gene seen at few values must not explain all);
    noise log-normal around exp(-6) of the variance, wide; signal variances gamma(2, 0.5).

    Args:
        x: (n, d) standardised rows; target, known: (n,) target and known noise variance.
        start: where the search begins, but for the mean, which begins at 0; its finite length scales say what
            each component sees.
    """
    density = PosteriorDensity.of(x, target, known, start)
    found = minimize(
        density, density.start(start), jac=True, method="L-BFGS-B", options={"maxiter": max_iterations}
    )
    noise, constant, variances, scales = density.unpacked(found.x)
    # Linear algebra varies in the last bits with memory alignment; rounding keeps that
    # from reaching predictions, so that the same data and seed give the same model.
    length_scale = np.full(start.length_scale.shape, np.inf)
    for own, term, found_scales in zip(length_scale, density.terms, scales, strict=True):
        own[term.part.columns] = _rounded(found_scales)
    return HyperParameters(
        start.kernels, length_scale, _rounded(variances),
        float(_rounded(np.array([noise])).item()), float(_rounded(np.array([constant])).item()),
    )  # fmt: skip


@dataclass(frozen=True)
class _Term:
    """A component at the n rows of a fit.

    Attributes:
        x: (n, k) the columns it sees.
        levels: of a categorical one: (n, l) indicators of each column's values; ``column``: (l,) whose each is.
        lower: (k,) least length scales; empty where they are not learned.
    """

    part: Component
    x: FloatArray
    levels: FloatArray
    column: IntArray
    lower: FloatArray

    @classmethod
    def of(cls, part: Component, x: FloatArray) -> _Term:
        seen, n_columns = np.ascontiguousarray(x[:, part.columns]), len(part.columns)
        levels, column = np.empty((len(x), 0)), np.empty(0, dtype=np.int64)
        lower = np.full(0 if part.kernel == "linear" else n_columns, MIN_SCALE)
        if part.kernel == "categorical":
            lower *= n_columns
            found = [values[:, None] == np.unique(values) for values in seen.T]
            levels = np.hstack(found).astype(np.float64)
            column = np.repeat(np.arange(n_columns), [own.shape[1] for own in found])
        return cls(part, seen, levels, column, lower)

    def correlation(self, scales: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Correlations (n, n) of the rows, and of a Matern kernel what :meth:`by_scales` needs beside them."""
        if self.part.kernel == "linear":
            scaled = self.x / self.part.scales
            return scaled @ scaled.T, np.empty(0)
        if self.part.kernel == "categorical":
            same = (self.levels / scales[self.column]) @ self.levels.T
            return np.exp(np.minimum(same - (1.0 / scales).sum(), 0.0)), np.empty(0)
        scaled = self.x / scales
        squares = (scaled * scaled).sum(axis=1)
        distance = scaled @ scaled.T
        distance *= -2.0
        distance += squares[:, None]
        distance += squares
        np.maximum(distance, 0.0, out=distance)
        distance *= 5.0
        root = np.sqrt(distance)
        decay = np.exp(-root)
        root += 1.0
        root *= decay
        distance *= decay
        distance /= 3.0
        distance += root
        # (1 + r sqrt 5 + 5/3 r^2) e^(-r sqrt 5), and of its slope by r^2 the part (1 + r sqrt 5) e^(-r sqrt 5).
        return distance, root

    def by_scales(
        self, scales: FloatArray, correlation: FloatArray, beside: FloatArray, weight: FloatArray
    ) -> FloatArray:
        """(k,) sum over pairs of rows of weight (n, n) x the correlation's slope by each length scale."""
        if self.part.kernel == "categorical":
            weight = weight * correlation
            same = np.einsum("ij,ij->j", self.levels, weight @ self.levels)
            agreeing = np.bincount(self.column, same, minlength=len(scales))
            return np.asarray((weight.sum() - agreeing) / scales**2)
        weight = weight * beside
        scaled = self.x / scales
        own = weight.sum(axis=1) @ (scaled * scaled) - np.einsum("ij,ij->j", scaled, weight @ scaled)
        return np.asarray(10.0 / 3.0 * own / scales)


@dataclass(frozen=True)
class PosteriorDensity:
    """Minus the log posterior density per row, and its gradient, by the free parameters.

    These are the logarithm of the learned noise above its bound, the constant, and per component the logarithms of
    its variance and its length scales above theirs: on logarithms all have gradients of like size.

    Attributes:
        terms: the components at the n rows.
        target, known: (n,).
    """

    terms: tuple[_Term, ...]
    target: FloatArray
    known: FloatArray

    @classmethod
    def of(
        cls, x: FloatArray, target: FloatArray, known: FloatArray, start: HyperParameters
    ) -> PosteriorDensity:
        """Of rows (n, d) seen by the components of ``start``."""
        terms = tuple(_Term.of(part, x) for part in start.components())
        return cls(terms, target, np.maximum(known, MIN_NOISE))

    def start(self, hyper: HyperParameters) -> FloatArray:
        """The free parameters of given ones, with a constant of 0."""
        found = [_above(np.array([hyper.noise_variance]), MIN_NOISE), np.zeros(1)]
        for term, part in zip(self.terms, hyper.components(), strict=True):
            found.append(_above(np.array([part.variance]), MIN_VARIANCE))
            if len(term.lower):
                found.append(_above(part.scales, term.lower))
        return np.concatenate(found)

    def unpacked(self, free: FloatArray) -> tuple[float, float, FloatArray, list[FloatArray]]:
        """Noise, constant, variances (c,), and length scales of each of c components."""
        value, at, variances, scales = np.exp(free), 2, [], []
        for term in self.terms:
            variances.append(MIN_VARIANCE + value[at])
            own = value[at + 1 : at + 1 + len(term.lower)]
            scales.append(term.lower + own if len(own) else term.part.scales)
            at += 1 + len(own)
        return MIN_NOISE + float(value[0]), float(free[1]), np.array(variances), scales

    def __call__(self, free: FloatArray) -> tuple[float, FloatArray]:
        """Value and gradient at free parameters."""
        with np.errstate(over="ignore", invalid="ignore"):
            noise, constant, variances, scales = self.unpacked(free)
            found = [term.correlation(own) for term, own in zip(self.terms, scales, strict=True)]
            total = sum(v * correlation for v, (correlation, _) in zip(variances, found, strict=True))
            total[np.diag_indices(len(total))] += self.known + noise
        try:
            # A step of the search may go where numbers end; it is to turn back from there.
            factor = _factor(total)
            if not np.isfinite(factor).all():
                return WORST, np.zeros(len(free))
        except LinAlgError:
            return WORST, np.zeros(len(free))
        off = self.target - constant
        solved = cho_solve((factor, True), off, check_finite=False)
        log_density = -0.5 * float(off @ solved) - float(np.log(np.diag(factor)).sum())
        log_density -= 0.5 * len(off) * float(np.log(2 * np.pi))
        # Of log N(y; c, C) by C: (C^-1 (y - c) (y - c)' C^-1 - C^-1) / 2.
        weight = np.multiply.outer(solved, solved)
        weight -= _inverse(factor)
        weight *= 0.5
        of_noise, slopes = _log_normal(np.array([noise]), *NOISE_PRIOR)
        log_density += of_noise
        gradient = [(np.trace(weight) + slopes) * (noise - MIN_NOISE), solved.sum(keepdims=True)]
        for term, variance, own, (correlation, beside) in zip(
            self.terms, variances, scales, found, strict=True
        ):
            of_variance, slope = _log_gamma(float(variance), *VARIANCE_PRIOR)
            log_density += of_variance
            by_variance = float(np.einsum("ij,ij->", weight, correlation)) + slope
            gradient.append(np.array([by_variance * (variance - MIN_VARIANCE)]))
            if len(term.lower):
                center = float(np.log(typical_length_scale(term.part.kernel, len(own))))
                of_scales, slopes = _log_normal(own, center, SCALE_SPREAD)
                log_density += of_scales
                by_scales = variance * term.by_scales(own, correlation, beside, weight) + slopes
                gradient.append(by_scales * (own - term.lower))
        return -log_density / len(off), -np.concatenate(gradient) / len(off)


def _above(value: FloatArray, lower: FloatArray | float) -> FloatArray:
    """Logarithms of how far values are above their bounds, on which a rounded one may lie."""
    return np.log(np.maximum(value - lower, 1e-6 * np.asarray(lower)))


def _factor(covariance: FloatArray) -> FloatArray:
    """Lower Cholesky factor; of a matrix that is singular to rounding, of one with a little more noise."""
    size = max(1.0, float(np.diag(covariance).mean()))
    for jitter in (0.0, 1e-8, 1e-7, 1e-6, 1e-5):
        try:
            return np.asarray(
                cholesky(covariance + jitter * size * np.eye(len(covariance)), lower=True, check_finite=False)
            )
        except LinAlgError:
            continue
    raise LinAlgError("the covariance of the training rows is not positive definite")


def _inverse(factor: FloatArray) -> FloatArray:
    """(n, n) inverse of a matrix from its lower Cholesky factor."""
    lower, _ = lapack.dpotri(factor, lower=1)
    inverse = lower + lower.T  # above the diagonal the factor has zeros, which stay
    inverse[np.diag_indices(len(inverse))] /= 2.0
    return np.asarray(inverse)


def _log_normal(value: FloatArray, center: float, spread: float) -> tuple[float, FloatArray]:
    """Log density of independent log-normal values (k,), and its slopes (k,)."""
    z = (np.log(value) - center) / spread
    log_density = -0.5 * z**2 - np.log(value) - np.log(spread * np.sqrt(2 * np.pi))
    return float(log_density.sum()), np.asarray(-(z / spread + 1.0) / value)


def _log_gamma(value: float, shape: float, rate: float) -> tuple[float, float]:
    """Log density of a gamma distribution with a whole shape, and its slope."""
    log_density = shape * np.log(rate) - lgamma(shape) + (shape - 1) * np.log(value) - rate * value
    return float(log_density), float((shape - 1) / value - rate)


def _rounded(values: FloatArray) -> FloatArray:
    """To four significant digits."""
    return np.array([float(f"{v:.4g}") for v in values.reshape(-1)]).reshape(values.shape)
