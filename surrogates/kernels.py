"""The Gaussian process's covariance: a sum of functions of some of the features, each with a kernel of its own.

All of it works on standardised features.  Three kernels are known:

* ``matern``: Matern-5/2 with one length scale per column;
* ``categorical``: exp(-sum_j [a_j != b_j] / l_j), equal or not whatever the numbers (the product
  over columns of a compound-symmetry kernel; Roustant et al. 2020, "Group kernels for Gaussian
  process metamodels with categorical inputs", section 3);
* ``linear``: sum_j a_j b_j / l_j^2, so that a column's weight has variance 1 / l_j^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .models import IntArray, KernelKind, KernelPart
from .prediction import FloatArray
from .random_features import CategoricalPrior, LinearPrior, MaternPrior


@dataclass(frozen=True)
class Component:
    """One of the functions that add up.

    Attributes:
        kernel: its kernel.
        columns: (k,) the features it sees.
        scales: (k,) their length scales.
        variance: of the signal; of a linear one, where all its features are one standard deviation
            from their means.
    """

    kernel: KernelKind
    columns: IntArray
    scales: FloatArray
    variance: float


@dataclass(frozen=True)
class HyperParameters:
    """Of one output, in standardised units.

    Attributes:
        kernels: of the c components.
        length_scale: (c, d) per component and feature; infinite where a component does not
            see a feature.
        signal_variance: (c,) of the components.
        noise_variance: learned, on top of what is known per row.
        constant: prior mean.
    """

    kernels: tuple[KernelKind, ...]
    length_scale: FloatArray
    signal_variance: FloatArray
    noise_variance: float
    constant: float

    @classmethod
    def default(cls, n_features: int, parts: Sequence[KernelPart]) -> HyperParameters:
        """Smooth in every feature, components of equal weight: what is assumed where data cannot say."""
        length_scale = np.full((len(parts), n_features), np.inf)
        for scales, part in zip(length_scale, parts, strict=True):
            scales[list(part.columns)] = typical_length_scale(part.kernel, len(part.columns))
        share = np.full(len(parts), 1.0 / len(parts))
        return cls(tuple(part.kernel for part in parts), length_scale, share, 1e-3, 0.0)

    def components(self) -> list[Component]:
        """The functions that add up."""
        parts = []
        for kernel, scales, variance in zip(
            self.kernels, self.length_scale, self.signal_variance, strict=True
        ):
            columns = np.flatnonzero(np.isfinite(scales))
            parts.append(Component(kernel, columns, scales[columns], float(variance)))
        return parts


def typical_length_scale(kernel: KernelKind, n_columns: int) -> float:
    """Length scale at which rows are alike, but not the same, in n columns.

    ``matern``: 2 sqrt(n), as standardised rows are sqrt(2 n) apart on average.  ``categorical``:
    2 n, so that rows that differ everywhere correlate by exp(-1/2).  ``linear``: sqrt(n), so that
    all columns together have unit variance.
    """
    if kernel == "categorical":
        return 2.0 * n_columns
    return float(np.sqrt(n_columns)) * (2.0 if kernel == "matern" else 1.0)


def matern52(a: FloatArray, b: FloatArray) -> FloatArray:
    """Matern-5/2 correlation (n, k) of rows ``a`` (n, d) and ``b`` (k, d), divided by length scales.

    (1 + r sqrt 5 + 5/3 r^2) exp(-r sqrt 5), Rasmussen & Williams (2006), eq. 4.17.
    """
    correlation: FloatArray = a @ b.T
    # In place throughout: these arrays are the largest of a prediction.
    correlation *= -2.0
    correlation += (a * a).sum(axis=1)[:, None]
    correlation += (b * b).sum(axis=1)[None, :]
    np.maximum(correlation, 0.0, out=correlation)
    correlation *= 5.0
    root = np.sqrt(correlation)
    correlation /= 3.0
    correlation += root
    correlation += 1.0
    np.negative(root, out=root)
    np.exp(root, out=root)
    correlation *= root
    return correlation


def same_category(a: FloatArray, b: FloatArray, scales: FloatArray) -> FloatArray:
    """Categorical correlation (n, k) of rows ``a`` (n, d) and ``b`` (k, d): exp(-sum_j [a_j != b_j] / l_j)."""
    differs: FloatArray = np.full((len(a), len(b)), float((1.0 / scales).sum()))
    for column, scale in enumerate(scales):
        levels = np.unique(b[:, column])
        here = (a[:, column, None] == levels) / scale
        differs -= here @ (levels[:, None] == b[:, column])
    np.maximum(differs, 0.0, out=differs)
    np.negative(differs, out=differs)
    np.exp(differs, out=differs)
    return differs


def _component_covariance(part: Component, a: FloatArray, b: FloatArray) -> FloatArray:
    a, b = a[:, part.columns], b[:, part.columns]
    if part.kernel == "categorical":
        covariance = same_category(a, b, part.scales)
    elif part.kernel == "linear":
        covariance = (a / part.scales) @ (b / part.scales).T
    else:
        covariance = matern52(a / part.scales, b / part.scales)
    covariance *= part.variance
    return covariance


def covariance(hyper: HyperParameters, a: FloatArray, b: FloatArray) -> FloatArray:
    """Prior covariance (n, k) of standardised rows ``a`` (n, d) and ``b`` (k, d)."""
    first, *others = hyper.components()
    total = _component_covariance(first, a, b)
    for part in others:
        total += _component_covariance(part, a, b)
    return total


def prior_variance(hyper: HyperParameters, x: FloatArray) -> FloatArray:
    """(n,) prior variance of standardised rows (n, d): the diagonal of their covariance."""
    total = np.zeros(len(x))
    for part in hyper.components():
        if part.kernel == "linear":
            total += part.variance * ((x[:, part.columns] / part.scales) ** 2).sum(axis=1)
        else:
            total += part.variance
    return total


class PriorDraws:
    """s joint draws of the prior, as functions of the row: the sum of its components'."""

    def __init__(
        self, hyper: HyperParameters, n_features: int, n_draws: int, rng: np.random.Generator
    ) -> None:
        self._parts = [
            (part, np.sqrt(part.variance), _component_prior(part, n_features, n_draws, rng))
            for part in hyper.components()
        ]

    def __call__(self, x: FloatArray) -> FloatArray:
        """All draws (n, s) at standardised rows (n, d)."""
        total: FloatArray | None = None
        for part, sd, prior in self._parts:
            seen = x[:, part.columns]
            draw = prior(seen if part.kernel == "categorical" else seen / part.scales)
            draw *= sd
            total = draw if total is None else total + draw
        assert total is not None
        return total


def _component_prior(
    part: Component, n_features: int, n_draws: int, rng: np.random.Generator
) -> MaternPrior | CategoricalPrior | LinearPrior:
    if part.kernel == "categorical":
        return CategoricalPrior(part.scales, n_features, n_draws, rng)
    if part.kernel == "linear":
        return LinearPrior(len(part.columns), n_draws, rng)
    return MaternPrior(n_features, len(part.columns), n_draws, rng)
