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
"""Exponents p that are tried; past 4 the sum is within 19 % of its larger part, whatever p."""

N_STEPS = 40
"""Damped steps per exponent."""

STEP = 0.5


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


def fit_roofline(terms: FloatArray, log_value: FloatArray, resource: IntArray | None = None) -> Roofline:
    """Least squares on the logarithm, coefficients never negative, for the exponent that fits best.

    Gauss-Newton: the value is homogeneous of degree one in the coefficients, so the linearised problem is
    a non-negative least squares of relative errors.  It starts from the plain sum.

    Args:
        terms: (n, k), never negative; log_value: (n,).
        resource: (k,) index of each term's resource; by default all terms add up.
    """
    resource = np.zeros(terms.shape[1], dtype=np.int64) if resource is None else resource
    value = np.exp(log_value)
    size = np.sqrt(((terms / value[:, None]) ** 2).mean(axis=0))
    size = np.where(size > 0, size, 1.0)
    floor, scaled = 1e-3 * float(value.min()), terms / size
    solution, _ = nnls(scaled / value[:, None], np.ones(len(value)))
    members = [resource == r for r in _resources(resource)]
    fits = [
        (*_fit_overlap(scaled, log_value, members, solution, overlap, floor), overlap)
        for overlap in (OVERLAPS if len(members) > 1 else OVERLAPS[:1])
    ]
    _, solution, overlap = min(fits, key=lambda fit: fit[0])
    # Rounded, as sums may differ in the last bits with memory alignment.
    rounded = np.array([float(f"{c:.6g}") for c in solution / size])
    return Roofline(rounded, resource, overlap, floor)


def _fit_overlap(
    terms: FloatArray, log_value: FloatArray, members: list[NDArray[np.bool_]], start: FloatArray,
    overlap: float, floor: float,
) -> tuple[float, FloatArray]:  # fmt: skip
    """Mean squared error and coefficients for one exponent; of all steps, the best."""
    # A resource that the plain sum left out would have no slope to come back on.
    solution = np.maximum(start, 1e-3 * start.max(initial=1e-300))
    best = (np.inf, solution)
    for _ in range(N_STEPS):
        parts = np.stack([terms[:, of] @ solution[of] for of in members], axis=1)
        total = np.maximum((parts**overlap).sum(axis=1) ** (1 / overlap), floor)
        missed = log_value - np.log(total)
        loss = float(np.mean(missed**2))
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
        found, _ = nnls(slope, target)
        step = 1.0 if len(members) == 1 else STEP
        solution = (1 - step) * solution + step * found
    return best
