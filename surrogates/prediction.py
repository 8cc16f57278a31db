"""What a predictor promises: means with two variances kept apart, and draws that are functions.

Shapes: n rows, m outputs, s draws, d features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Predictive distribution per row and output, normal on the predictor's own scale.

    Attributes:
        mean: (n, m).
        var_epistemic: (n, m), what more measurements would shrink.
        var_noise: (n, m), what they would not.
        names: m output names.
        units: m units ("" = dimensionless, "log ms", "logit" ...).
    """

    mean: FloatArray
    var_epistemic: FloatArray
    var_noise: FloatArray
    names: tuple[str, ...]
    units: tuple[str, ...]

    @property
    def sd_total(self) -> FloatArray:
        """(n, m) standard deviation of a new measurement."""
        return np.sqrt(self.var_epistemic + self.var_noise)


class Paths(Protocol):
    """Joint draws of the unknown function: same row, same value, whatever the batch."""

    def __call__(self, x: FloatArray) -> FloatArray:
        """Evaluate every draw at rows ``x`` (n, d); returns (s, n, m)."""
        ...


class DrawsBesideMean(NamedTuple):
    """What a Gaussian process says of n rows, from one look at their covariances.

    Attributes:
        draws: (s, n) joint draws.
        mean: (n,) of the posterior.
        absorbed: (n, k) what its rows take up of the slopes they were given (see :mod:`.slopes`).
    """

    draws: FloatArray
    mean: FloatArray
    absorbed: FloatArray


@runtime_checkable
class JointlyDrawn(Protocol):
    """A model that draws at given rows at once, without the approximation that draws of whole functions need."""

    def joint_draws(self, x: FloatArray, n_draws: int, seed: int) -> FloatArray:
        """Joint draws (s, n, m) of the noise-free functions at rows ``x`` (n, d)."""
        ...


class Predictor(Protocol):
    """A regressor with honest uncertainty."""

    def fit(self, x: FloatArray, y: FloatArray, noise_variance: FloatArray | None = None) -> Self:
        """Fit to ``x`` (n, d), ``y`` (n, m); NaN in ``y`` = not measured.

        Args:
            noise_variance: (n, m) known variance of each measured value, or ``None``.
        """
        ...

    def predict(self, x: FloatArray) -> Prediction: ...
    def paths(self, n_draws: int, seed: int) -> Paths: ...
