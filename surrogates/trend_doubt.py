"""How unsure the coefficients of a fitted roofline are: the part of a trend's doubt that its residuals do not show.

Coefficients are fitted to the very rows whose residuals a model then learns from, so with few rows the residuals
are small whatever the coefficients are worth.  Here they have a prior as wide as ignorance makes it, and what the
rows leave of it is carried to other rows to first order: a linear model on d log value / d coefficient (Bishop
2006, section 3.3), whose mean is zero as the fit is its centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.linalg import cholesky, solve_triangular

from .prediction import FloatArray
from .roofline import Roofline, term_sizes

PRIOR_SHARE = 0.5
"""Prior standard deviation of a coefficient, as a share of the one with which its term alone explains the values."""


@dataclass(frozen=True)
class CoefficientDoubt:
    """Deviations of the k coefficients from the fitted ones: normal, with mean zero.

    Attributes:
        unit: (k,) their prior standard deviations.
        root: (k, k) of their covariance in these units: root @ root.T.
    """

    unit: FloatArray
    root: FloatArray

    @classmethod
    def of(cls, roofline: Roofline, terms: FloatArray, log_value: FloatArray, variance: FloatArray) -> Self:
        """What rows with terms (n, k) leave open.

        Args:
            log_value: (n,) what was measured there.
            variance: (n,) of each of them around the trend.
        """
        unit = PRIOR_SHARE / term_sizes(terms, np.exp(log_value))
        slopes = _slopes(roofline, terms, unit)
        return cls(unit, _root((slopes / variance[:, None]).T @ slopes))

    def joint(self, told: FloatArray, pull: FloatArray) -> tuple[CoefficientDoubt, FloatArray]:
        """What rows leave open that also a Gaussian process of the residuals was conditioned on.

        Args:
            told: (k, k) what they tell of deviations along :meth:`slopes` (see :mod:`.slopes`).
            pull: (k,) where they pull these.

        Returns:
            The doubt, and the mean (k,) of the deviations, in prior standard deviations.
        """
        root = _root(told)
        return CoefficientDoubt(self.unit, root), np.asarray(root @ (root.T @ pull))

    def slopes(self, roofline: Roofline, terms: FloatArray) -> FloatArray:
        """(n, k) what one prior standard deviation of each coefficient adds to the logarithm at terms (n, k)."""
        return _slopes(roofline, terms, self.unit)

    def variance(
        self, roofline: Roofline, terms: FloatArray, absorbed: FloatArray | None = None
    ) -> FloatArray:
        """(n,) of the trend's logarithm at terms (n, k), as far as (n, k) a Gaussian process does not absorb it."""
        left = _slopes(roofline, terms, self.unit) - (0.0 if absorbed is None else absorbed)
        spread = left @ self.root
        return np.asarray(np.einsum("ij,ij->i", spread, spread))

    def draws(self, n_draws: int, seed: int) -> FloatArray:
        """(k, s) deviations in prior standard deviations, for :meth:`moved`."""
        rng = np.random.default_rng([seed, 7])
        return np.asarray(self.root @ rng.standard_normal((len(self.root), n_draws)))

    def moved(
        self,
        roofline: Roofline,
        terms: FloatArray,
        deviations: FloatArray,
        absorbed: FloatArray | None = None,
    ) -> FloatArray:
        """(s, n) by how much the trend's logarithm at terms (n, k) moves with drawn deviations (k, s).

        Args:
            absorbed: (n, k) what a Gaussian process of the residuals takes up of the slopes there.
        """
        left = _slopes(roofline, terms, self.unit) - (0.0 if absorbed is None else absorbed)
        return np.asarray((left @ deviations).T)


def _root(told: FloatArray) -> FloatArray:
    """(k, k) root of the covariance (I + told)^-1."""
    precision = told + np.eye(len(told))
    factor = cholesky(precision, lower=True)
    return np.asarray(solve_triangular(factor, np.eye(len(factor)), lower=True).T)


def _slopes(roofline: Roofline, terms: FloatArray, unit: FloatArray) -> FloatArray:
    """(n, k) what one prior standard deviation of each coefficient adds to the logarithm.

    A term that outgrows all that the fit relied on adds its logarithm, not its size; one below zero, which
    can only be asked about, adds nothing.
    """
    return np.asarray(np.log1p(np.maximum(roofline.slopes(terms) * unit, 0.0)))
