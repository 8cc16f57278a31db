"""What all predictors ask of their data, and how they scale it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ModelError
from .prediction import FloatArray


def checked_data(
    x: FloatArray, y: FloatArray, noise_variance: FloatArray | None, names: tuple[str, ...]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Float64 copies of ``x`` (n, d), ``y`` (n, m) and known noise (n, m; 0 where not given).

    Raises:
        ModelError: wrong shapes, a value that is not finite, an output without a single row.
    """
    x, y = np.array(x, dtype=np.float64, ndmin=2), np.array(y, dtype=np.float64, ndmin=2)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ModelError(f"training rows x {x.shape} and targets y {y.shape}: expected (n, d) and (n, m)")
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise ModelError(f"training row {row}: feature {column} is {x[row, column]}; features must be finite")
    if np.isinf(y).any():
        row, column = np.argwhere(np.isinf(y))[0]
        raise ModelError(f"training row {row}: target {column} is infinite; use NaN for 'not measured'")
    if y.shape[1] != len(names):
        raise ModelError(f"targets have {y.shape[1]} columns; the model names {len(names)}: {list(names)}")
    for column, name in enumerate(names):
        if not np.isfinite(y[:, column]).any():
            raise ModelError(f"target '{name}': not one measured row to train on")
    if noise_variance is None:
        return x, y, np.zeros_like(y)
    noise = np.nan_to_num(np.array(noise_variance, dtype=np.float64, ndmin=2), nan=0.0)
    if noise.shape != y.shape or (noise < 0).any() or not np.isfinite(noise).all():
        raise ModelError(f"noise variances {noise.shape} must be finite, not negative, and match y {y.shape}")
    return x, y, noise


def checked_rows(x: FloatArray, n_features: int) -> FloatArray:
    """Rows to predict, as float64 (n, d).

    Raises:
        ModelError: another number of features than the model was trained on, or a value not finite.
    """
    x = np.ascontiguousarray(x, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != n_features:
        raise ModelError(f"rows to predict have shape {x.shape}; the model was trained on (n, {n_features})")
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise ModelError(f"row {row} to predict: feature {column} is {x[row, column]}")
    return x


@dataclass(frozen=True)
class Scaling:
    """Column means and scales; a constant column gets scale 1."""

    mean: FloatArray
    scale: FloatArray

    @classmethod
    def of_inputs(cls, x: FloatArray) -> Scaling:
        """From inputs (n, d)."""
        mean, scale = x.mean(axis=0), x.std(axis=0)
        return cls(mean, np.where(scale > 1e-9 * np.maximum(1.0, np.abs(mean)), scale, 1.0))

    def __call__(self, x: FloatArray) -> FloatArray:
        """Scaled rows."""
        return (x - self.mean) / self.scale


FEW_ROWS_SCALE = 2.0
"""Over the square of the number of rows: the least scale of a target, on a log or logit scale."""


def target_scaling(y: FloatArray, noise_variance: FloatArray | None = None) -> tuple[float, float, bool]:
    """Mean, scale, and whether the target (n,) varies.

    A target that does not vary says nothing of its own scale.  Predictors here live on log
    or logit scales, whose natural unit is 1, so the scale is 1 for one row and shrinks as
    1 / n while further rows keep agreeing.  Nor do two or three values that happen to be close,
    or that a trend was drawn through, show how far others lie: the spread of few rows is added to
    a floor that is half a unit for two rows, and has no say from a few dozen on.

    Args:
        noise_variance: (n,) known variances; values whose own noise is far above the spread of most
            have little say.
    """
    weights = None
    if noise_variance is not None and np.ptp(noise_variance) > 0:
        # Half of the values lie between the quartiles, whatever a few wild ones are.
        low, high = np.quantile(y, (0.25, 0.75))
        spread = max(float(high - low) ** 2, float(noise_variance.min()))
        weights = 1.0 / (spread + noise_variance) if spread > 0 else None
    mean = float(np.average(y, weights=weights))
    scale = float(np.sqrt(np.average((y - mean) ** 2, weights=weights)))
    if scale > 1e-9 * max(1.0, abs(mean)):
        return mean, float(np.hypot(scale, FEW_ROWS_SCALE / len(y) ** 2)), True
    return mean, 1.0 / len(y), False
