"""A physical mean function under any regressor: a non-negative sum of terms, and a model of what it misses.

A roofline's times (work over clock, bytes over clock, launches, a constant) add up to most of a latency,
so what is left to learn is small and smooth, and a prediction far from the training rows falls back on
physics instead of on the mean of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
from scipy.optimize import nnls

from ..errors import ModelError
from .checks import checked_data, checked_rows
from .models import Design, IntArray, KernelPart, Model, ModelState, make_model, model_from_state
from .prediction import FloatArray, Paths, Prediction
from .threads import single_thread

PREFIX = "trend+"
"""Of the kinds of model made here; the rest of the kind names the model of the residual."""

MAX_STEPS = 20
"""Of the fit of the trend; it settles after a handful."""


class TrendedModel:
    """log(value) = log(terms . coefficients) + residual, with coefficients that are never negative.

    Single-output; a :class:`hadas.surrogates.models.Model`.  Its variances are those of the residual's
    model.

    Args:
        kind: ``trend+`` and the kind of the residual's model.
        name, unit: of the output, the logarithm of a positive quantity.
        seed, quick: handed to the residual's model.
        design: ``terms`` are the columns of the trend; ``parts`` may see the others only.  Monotone signs
            are those of the sum and say nothing of the residual, so they are not handed on.

    Raises:
        ModelError: a design without terms, or one whose parts see a term.
    """

    def __init__(
        self, kind: str, name: str, unit: str, *, seed: int, quick: bool = False, design: Design | None = None
    ) -> None:
        design = design or Design()
        if not design.terms:
            raise ModelError(f"'{kind}' for '{name}': the design names no columns of physical terms")
        self.kind, self.name, self.unit = kind, name, unit
        self.seed, self.quick, self.design = seed, quick, design
        self._n_features = 0
        self._coefficients = np.zeros(0)
        self._floor = 0.0
        self._residual: Model | None = None

    def fit(
        self, x: FloatArray, y: FloatArray, noise_variance: FloatArray | None = None,
        *, groups: IntArray | None = None,
    ) -> Self:  # fmt: skip
        """Fit to ``x`` (n, d), ``y`` (n, 1) logarithms; NaN in ``y`` = not measured.

        Args:
            noise_variance: (n, 1) known variance of each logarithm.
            groups: (n,) handed to the residual's model.

        Raises:
            ModelError: bad shapes or values, a negative term, or an output without data.
        """
        x, y, noise = checked_data(x, y, noise_variance, (self.name,))
        terms = x[:, self.design.terms]
        if (terms < 0).any():
            row, column = np.argwhere(terms < 0)[0]
            raise ModelError(
                f"'{self.name}': row {row} has {terms[row, column]} in column {self.design.terms[column]}; "
                "physical terms are never negative"
            )
        self._n_features = x.shape[1]
        known = np.flatnonzero(np.isfinite(y[:, 0]))
        with single_thread():
            self._coefficients, self._floor = fit_trend(terms[known], y[known, 0])
        residual = y - self._log_trend(x)[:, None]
        inner = make_model(
            self.kind.removeprefix(PREFIX), self.name, self.unit,
            seed=self.seed, quick=self.quick, design=self._residual_design(),
        )  # fmt: skip
        self._residual = inner.fit(self._residual_columns(x), residual, noise, groups=groups)
        return self

    def _others(self) -> IntArray:
        return np.setdiff1d(np.arange(self._n_features), np.array(self.design.terms, dtype=np.int64))

    def _residual_columns(self, x: FloatArray) -> FloatArray:
        others = self._others()
        # A design of terms alone still leaves the residual something to vary with.
        return x[:, others] if len(others) else self._log_trend(x)[:, None]

    def _residual_design(self) -> Design:
        position = {int(column): i for i, column in enumerate(self._others())}
        parts = []
        for part in self.design.parts:
            terms = sorted(set(part.columns) - set(position))
            if terms:
                raise ModelError(f"'{self.name}': a part of the design sees columns {terms}, which are terms")
            parts.append(KernelPart(tuple(position[c] for c in part.columns), part.kernel))
        return Design(tuple(parts))

    def _log_trend(self, x: FloatArray) -> FloatArray:
        total = (x[:, self.design.terms] * self._coefficients).sum(axis=1)
        return np.asarray(np.log(np.maximum(total, self._floor)))

    def _checked(self, x: FloatArray) -> tuple[FloatArray, Model]:
        if self._residual is None:
            raise ModelError(f"the '{self.kind}' model has not been fitted; call fit first")
        return checked_rows(x, self._n_features), self._residual

    @property
    def coefficients(self) -> FloatArray:
        """(k,) of the design's terms, in the value's unit per unit of the term."""
        return self._coefficients.copy()

    def predict(self, x: FloatArray) -> Prediction:
        """Means and variances (n, 1) at rows ``x`` (n, d)."""
        x, residual = self._checked(x)
        found = residual.predict(self._residual_columns(x))
        mean = found.mean + self._log_trend(x)[:, None]
        return Prediction(mean, found.var_epistemic, found.var_noise, found.names, found.units)

    def mean(self, x: FloatArray) -> FloatArray:
        """Means (n, 1)."""
        x, residual = self._checked(x)
        return np.asarray(residual.mean(self._residual_columns(x)) + self._log_trend(x)[:, None])

    def paths(self, n_draws: int, seed: int) -> Paths:
        """Joint draws of the noise-free functions, as functions of the row."""
        if self._residual is None:
            raise ModelError(f"the '{self.kind}' model has not been fitted; call fit first")
        draws = self._residual.paths(n_draws, seed)

        def paths(x: FloatArray) -> FloatArray:
            x, _ = self._checked(x)
            return np.asarray(draws(self._residual_columns(x)) + self._log_trend(x)[None, :, None])

        return paths

    def state(self) -> ModelState:
        """Everything needed to predict, bit for bit."""
        if self._residual is None:
            raise ModelError(f"the '{self.kind}' model has not been fitted; call fit first")
        inner = self._residual.state()
        values = {
            "kind": self.kind, "name": self.name, "unit": self.unit, "seed": self.seed,
            "n_features": self._n_features, "terms": list(self.design.terms), "residual": dict(inner.values),
        }  # fmt: skip
        arrays = {"trend.coefficients": self._coefficients, "trend.floor": np.array([self._floor])}
        arrays |= {f"residual.{key}": array for key, array in inner.arrays.items()}
        return ModelState(values, arrays, dict(inner.boosters))

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        """The inverse of :meth:`state`.

        Raises:
            KeyError, ValueError, TypeError: the state is not one (the persistence layer says which file).
        """
        values, inner = state.values, state.values["residual"]
        kind, name, unit, seed, n_features = (
            values[k] for k in ("kind", "name", "unit", "seed", "n_features")
        )
        terms = values["terms"]
        if not isinstance(kind, str) or not isinstance(name, str) or not isinstance(unit, str):
            raise TypeError("'kind', 'name' and 'unit' must be texts")
        if not isinstance(seed, int) or not isinstance(n_features, int):
            raise TypeError("'seed' and 'n_features' must be integers")
        if not isinstance(terms, list) or not all(isinstance(term, int) for term in terms):
            raise TypeError("'terms' must be a list of column numbers")
        if not isinstance(inner, Mapping) or not str(inner.get("kind")) == kind.removeprefix(PREFIX):
            raise TypeError(f"'residual' must be the state of the model that '{kind}' names")
        if not all(0 <= term < n_features for term in terms):
            raise ValueError(f"'terms' {terms} are not among {n_features} columns")
        model = cls(kind, name, unit, seed=seed, design=Design(terms=tuple(terms)))
        model._n_features = n_features
        model._coefficients = state.arrays["trend.coefficients"]
        (floor,) = state.arrays["trend.floor"]
        model._floor = float(floor)
        if model._coefficients.shape != (len(terms),):
            raise ValueError(f"{len(terms)} terms, but coefficients of shape {model._coefficients.shape}")
        prefix = "residual."
        arrays = {k.removeprefix(prefix): a for k, a in state.arrays.items() if k.startswith(prefix)}
        model._residual = model_from_state(ModelState(inner, arrays, state.boosters))
        return model


def fit_trend(terms: FloatArray, log_value: FloatArray) -> tuple[FloatArray, float]:
    """Coefficients >= 0 of a sum of terms that meets positive values in relative error, and a floor.

    Gauss-Newton steps on sum (log(terms . c) - log value)^2, each a non-negative least squares of relative
    errors.  The first divides by the value alone, which favours sums that are too small; the others by the
    sum so far.

    Args:
        terms: (n, k), never negative; log_value: (n,).

    Returns:
        (k,) coefficients, and the least that the sum is taken for: rows that lack every term that the fit
        relied on get a value all the same.
    """
    value = np.exp(log_value)
    size = np.sqrt(((terms / value[:, None]) ** 2).mean(axis=0))
    size = np.where(size > 0, size, 1.0)
    floor = 1e-3 * float(value.min())
    scaled = terms / size
    solution, _ = nnls(scaled / value[:, None], np.ones(len(value)))
    for _ in range(MAX_STEPS):
        total = np.maximum(scaled @ solution, floor)
        # A step of at most a factor of e keeps the linear approximation, and single wild rows, in bounds.
        missed = np.clip(log_value - np.log(total), -1.0, 1.0)
        before = solution
        solution, _ = nnls(scaled / total[:, None], 1.0 + missed)
        if np.allclose(solution, before, rtol=1e-5, atol=1e-9 * float(solution.max(initial=0.0))):
            break
    # Rounded, as sums may differ in the last bits with memory alignment.
    rounded = np.array([float(f"{c:.6g}") for c in solution / size])
    return rounded, floor
