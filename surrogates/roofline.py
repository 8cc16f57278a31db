"""A roofline fitted to measured values: terms add up within a resource, resources overlap in time.

value = (sum over resources r of (terms of r . coefficients)^p)^(1/p), coefficients >= 0.  With p = 1
nothing overlaps and all terms add up; with p -> infinity the busiest resource is all that is seen, the
roofline of Williams, Waterman & Patterson (2009).  Real boards lie between: kernels are launched while the
one before still runs, and memory is read while arithmetic goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from .models import IntArray
from .prediction import FloatArray

OVERLAPS = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Exponents p that are tried; past 4 the sum is within 19 % of the larger of two parts (32 % of the
largest of three, r^(1/4) of r), whatever p."""

N_STEPS = 40
"""Damped steps per exponent."""

STEP = 0.5

TRUSTED_VARIANCE = 0.25
"""Known variance of a logarithm up to which a value helps to start the search: within a factor of two or so."""


@dataclass(frozen=True)
class Roofline:
    """A fitted one.

    Attributes:
        coefficients: (k,) of the terms, in the value's unit per unit of the term.
        resource: (k,) index of each term's resource.
        overlap: p.
        floor: the least it says: rows that lack every term that the fit relied on get a value all the same.
    """

    coefficients: FloatArray
    resource: IntArray
    overlap: float
    floor: float

    def log_value(self, terms: FloatArray) -> FloatArray:
        """(n,) logarithms for terms (n, k)."""
        parts = self.parts(terms)
        largest = np.maximum(parts.max(axis=1), self.floor)
        scaled = ((parts / largest[:, None]) ** self.overlap).sum(axis=1)
        # Below the floor there is nothing that could overlap.
        scaled = np.maximum(scaled, (self.floor / largest) ** self.overlap)
        return np.asarray(np.log(largest) + np.log(scaled) / self.overlap)

    def slopes(self, terms: FloatArray) -> FloatArray:
        """(n, k) derivatives of the logarithm by the coefficients, also of those that are zero."""
        parts = self.parts(terms)
        total = np.exp(self.log_value(terms))[:, None]
        weight = (np.maximum(parts, 0.0) / total) ** (self.overlap - 1)
        return np.asarray(
            terms / total * weight[:, np.searchsorted(_resources(self.resource), self.resource)]
        )

    def parts(self, terms: FloatArray) -> FloatArray:
        """(n, r) what each resource would take alone."""
        weighted = terms * self.coefficients
        return np.stack([weighted[:, self.resource == r].sum(axis=1) for r in _resources(self.resource)], 1)

    def shares(self, terms: FloatArray) -> FloatArray:
        """(n, r - 1) shares of all resources but the last in the sum of their parts."""
        parts = self.parts(terms)
        return np.asarray((parts / np.maximum(parts.sum(axis=1), self.floor)[:, None])[:, :-1])


def _resources(resource: IntArray) -> IntArray:
    return np.unique(resource)


def fit_roofline(
    terms: FloatArray, log_value: FloatArray, resource: IntArray | None = None,
    noise_variance: FloatArray | None = None,
) -> Roofline:  # fmt: skip
    """Least squares on the logarithm, coefficients never negative, for the exponent that fits best.

    Gauss-Newton: the value is homogeneous of degree one in the coefficients, so the linearised problem is
    a non-negative least squares of relative errors.  It starts from the plain sum.

    Args:
        terms: (n, k), never negative; log_value: (n,).
        resource: (k,) index of each term's resource; by default all terms add up.
        noise_variance: (n,) known variance of each logarithm, which adds to that of the misfit; by default
            all rows count alike.
    """
    resource = np.zeros(terms.shape[1], dtype=np.int64) if resource is None else resource
    trusted = np.ones(len(terms), dtype=np.bool_)
    if noise_variance is not None:
        trusted = noise_variance <= max(float(np.median(noise_variance)), TRUSTED_VARIANCE)
    value = np.exp(log_value[trusted])
    size = term_sizes(terms[trusted], value)
    floor, scaled = 1e-3 * float(value.min()), terms / size
    solution, _ = nnls(scaled[trusted] / value[:, None], np.ones(len(value)))
    missed = log_value - np.log(np.maximum(scaled @ solution, floor))
    weight = row_weights(missed**2, noise_variance)
    members = [resource == r for r in _resources(resource)]
    fits = [
        (*_fit_overlap(scaled, log_value, weight, members, solution, overlap, floor), overlap)
        for overlap in (OVERLAPS if len(members) > 1 else OVERLAPS[:1])
    ]
    _, solution, overlap = min(fits, key=lambda fit: fit[0])
    # Rounded, as sums may differ in the last bits with memory alignment.
    rounded = np.array([float(f"{c:.6g}") for c in solution / size])
    return Roofline(rounded, resource, overlap, floor)


def term_sizes(terms: FloatArray, value: FloatArray) -> FloatArray:
    """(k,) of terms (n, k): by which to divide a term for it to be about as large as the values (n,) are."""
    size = np.sqrt(((terms / value[:, None]) ** 2).mean(axis=0))
    return np.where(size > 0, size, 1.0)


def row_weights(missed: FloatArray, noise_variance: FloatArray | None) -> FloatArray:
    """Weights (n,) of rows: 1 / (misfit + known variance), 1 where all rows are known alike.

    Args:
        missed: (n,) squared errors of a fit; noise_variance: (n,) known variances.
    """
    if noise_variance is None or np.ptp(noise_variance) == 0:
        return np.ones(len(missed))
    # Of a normal, the median square is 0.455 of the variance; rows that are wild do not move it.
    misfit = max(float(np.median(missed)) / 0.455, 1e-6)
    weight = 1.0 / (misfit + noise_variance)
    return np.asarray(weight / weight.max())


def _fit_overlap(
    terms: FloatArray, log_value: FloatArray, weight: FloatArray, members: list[NDArray[np.bool_]],
    start: FloatArray, overlap: float, floor: float,
) -> tuple[float, FloatArray]:  # fmt: skip
    """Weighted mean squared error and coefficients for one exponent; of all steps, the best."""
    root = np.sqrt(weight)
    # A resource that the plain sum left out would have no slope to come back on.
    solution = np.maximum(start, 1e-3 * start.max(initial=1e-300))
    best = (np.inf, solution)
    for _ in range(N_STEPS):
        parts = np.stack([terms[:, of] @ solution[of] for of in members], axis=1)
        total = np.maximum((parts**overlap).sum(axis=1) ** (1 / overlap), floor)
        missed = log_value - np.log(total)
        loss = float(np.mean(weight * missed**2))
        settled = abs(best[0] - loss) < 1e-9 * loss
        if loss < best[0]:
            best = (loss, solution)
        if settled:
            break
        slope = terms / total[:, None]
        for r, of in enumerate(members):
            slope[:, of] *= ((parts[:, r] / total) ** (overlap - 1))[:, None]
        # At most a factor of e keeps the linear approximation, and single wild rows, in bounds.
        target = 1.0 + np.clip(missed, -1.0, 1.0)
        found, _ = nnls(root[:, None] * slope, root * target)
        step = 1.0 if len(members) == 1 else STEP
        solution = (1 - step) * solution + step * found
    return best
