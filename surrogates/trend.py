"""A physical mean function under any regressor: a fitted roofline, and a model of what it misses.

A roofline's times (work over clock, bytes over clock, launches, a constant) make up most of a latency, so
what is left to learn is small and smooth, and a prediction far from the training rows falls back on
physics instead of on the mean of the rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np

from ..errors import ModelError
from .checks import checked_data, checked_rows
from .few_rows import widening_of_few
from .models import Design, IntArray, KernelPart, Model, ModelState, make_model, model_from_state
from .prediction import FloatArray, JointlyDrawn, Paths, Prediction
from .roofline import Roofline, fit_roofline, row_weights
from .threads import single_thread
from .trend_doubt import CoefficientDoubt

PREFIX = "trend+"
"""Of the kinds of model made here; the rest of the kind names the model of the residual."""

MISFIT = 0.1
"""By how much a roofline misses values that it was not drawn through, before there are more rows than coefficients."""


class TrendedModel:
    """log(value) = log(roofline of the terms) + residual.

    Single-output; a :class:`hadas.surrogates.models.Model`.  The residual's model sees all columns but the
    terms, and the shares of the resources in the roofline where there are several.  Variances are those of
    the residual's model, larger by n / (n - fitted coefficients) as the trend was drawn through the same
    rows, and that of the coefficients (:mod:`.trend_doubt`), which is epistemic.

    Args:
        kind: ``trend+`` and the kind of the residual's model.
        name, unit: of the output, the logarithm of a positive quantity.
        seed, quick: handed to the residual's model.
        design: ``terms`` are the columns of the roofline, ``term_resources`` their resources; ``parts``
            may see the other columns only.  Monotone signs are those of the whole and say nothing of the
            residual, so they are not handed on.

    Raises:
        ModelError: a design without terms, with resources of other terms, or (on ``fit``) with a part that
            sees a term.
    """

    def __init__(
        self, kind: str, name: str, unit: str, *, seed: int, quick: bool = False, design: Design | None = None
    ) -> None:
        design = design or Design()
        if not design.terms:
            raise ModelError(f"'{kind}' for '{name}': the design names no columns of physical terms")
        if design.term_resources and len(design.term_resources) != len(design.terms):
            raise ModelError(
                f"'{kind}' for '{name}': {len(design.terms)} terms, "
                f"but resources of {len(design.term_resources)}"
            )
        self.kind, self.name, self.unit = kind, name, unit
        self.seed, self.quick, self.design = seed, quick, design
        self._n_features = 0
        self._roofline: Roofline | None = None
        self._residual: Model | None = None
        self._doubt: CoefficientDoubt | None = None
        self._widening = 1.0

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
            resources = np.array(self.design.term_resources or [0] * terms.shape[1], dtype=np.int64)
            self._roofline = fit_roofline(terms[known], y[known, 0], resources, noise[known, 0])
        residual = y - self._log_trend(x)[:, None]
        inner = make_model(
            self.kind.removeprefix(PREFIX), self.name, self.unit,
            seed=self.seed, quick=self.quick, design=self._residual_design(),
        )  # fmt: skip
        self._residual = inner.fit(self._residual_columns(x), residual, noise, groups=groups)
        self._doubt_trend(terms[known], y[known, 0], residual[known, 0], noise[known, 0])
        return self

    def _doubt_trend(
        self, terms: FloatArray, log_value: FloatArray, residual: FloatArray, noise: FloatArray
    ) -> None:
        """What the n rows, with terms (n, k) and all else (n,), leave open of the trend drawn through them."""
        freedom = len(terms) - int((self.roofline.coefficients > 0).sum())
        self._widening = widening_of_few(len(terms), freedom)
        missed = float(np.average(residual**2, weights=row_weights(residual**2, noise)))
        # What the model of the residual explains of it counts in full: no other rows bore witness to both.
        least = MISFIT / (1 + max(freedom, 0)) ** 2
        variance = self._widening**2 * missed + least**2 + noise - noise.min()
        with single_thread():
            self._doubt = CoefficientDoubt.of(self.roofline, terms, log_value, variance)

    def _others(self) -> IntArray:
        return np.setdiff1d(np.arange(self._n_features), np.array(self.design.terms, dtype=np.int64))

    def _residual_columns(self, x: FloatArray) -> FloatArray:
        others, roofline = self._others(), self.roofline
        columns = np.hstack([x[:, others], roofline.shares(x[:, self.design.terms])])
        # A design of terms that all add up leaves the residual nothing else to vary with.
        return columns if columns.shape[1] else self._log_trend(x)[:, None]

    def _residual_design(self) -> Design:
        others = self._others()
        position = {int(column): i for i, column in enumerate(others)}
        parts = []
        for part in self.design.parts:
            terms = sorted(set(part.columns) - set(position))
            if terms:
                raise ModelError(f"'{self.name}': a part of the design sees columns {terms}, which are terms")
            parts.append(KernelPart(tuple(position[c] for c in part.columns), part.kernel))
        n_shares = len(set(self.design.term_resources)) - 1
        if parts and n_shares > 0:
            parts.append(KernelPart(tuple(range(len(others), len(others) + n_shares))))
        return Design(tuple(parts))

    @property
    def roofline(self) -> Roofline:
        """The fitted trend.

        Raises:
            ModelError: before ``fit``.
        """
        if self._roofline is None:
            raise ModelError(f"the '{self.kind}' model has not been fitted; call fit first")
        return self._roofline

    def _log_trend(self, x: FloatArray) -> FloatArray:
        return self.roofline.log_value(x[:, self.design.terms])

    def _fitted(self) -> tuple[Model, CoefficientDoubt]:
        if self._residual is None or self._doubt is None:
            raise ModelError(f"the '{self.kind}' model has not been fitted; call fit first")
        return self._residual, self._doubt

    def predict(self, x: FloatArray) -> Prediction:
        """Means and variances (n, 1) at rows ``x`` (n, d)."""
        residual, doubt = self._fitted()
        x = checked_rows(x, self._n_features)
        found, square = residual.predict(self._residual_columns(x)), self._widening**2
        mean = found.mean + self._log_trend(x)[:, None]
        with single_thread():
            of_trend = doubt.variance(self.roofline, x[:, self.design.terms])[:, None]
        return Prediction(
            mean, square * found.var_epistemic + of_trend, square * found.var_noise, found.names, found.units
        )

    def mean(self, x: FloatArray) -> FloatArray:
        """Means (n, 1)."""
        residual, _ = self._fitted()
        x = checked_rows(x, self._n_features)
        return np.asarray(residual.mean(self._residual_columns(x)) + self._log_trend(x)[:, None])

    def paths(self, n_draws: int, seed: int) -> Paths:
        """Joint draws of the noise-free functions, as functions of the row: coefficients and residuals."""
        residual, doubt = self._fitted()
        draws, deviations = residual.paths(n_draws, seed), doubt.draws(n_draws, seed)

        def paths(x: FloatArray) -> FloatArray:
            x = checked_rows(x, self._n_features)
            return self._with_trend(x, draws(self._residual_columns(x)), deviations)

        return paths

    def joint_draws(self, x: FloatArray, n_draws: int, seed: int) -> FloatArray:
        """Joint draws (s, n, 1) at rows ``x`` (n, d); see :meth:`.gp.GaussianProcess.joint_draws`.

        Raises:
            ModelError: the residual's model is no Gaussian process.
        """
        residual, doubt = self._fitted()
        if not isinstance(residual, JointlyDrawn):
            raise ModelError(
                f"'{self.kind}' for '{self.name}' has paths, but no joint draws: no Gaussian process"
            )
        x = checked_rows(x, self._n_features)
        drawn = residual.joint_draws(self._residual_columns(x), n_draws, seed)
        return self._with_trend(x, drawn, doubt.draws(n_draws, seed))

    def _with_trend(self, x: FloatArray, residuals: FloatArray, deviations: FloatArray) -> FloatArray:
        """Draws (s, n, 1) of the whole at rows (n, d), of drawn residuals (s, n, 1) and coefficients (k, s)."""
        residual, doubt = self._fitted()
        mean = residual.mean(self._residual_columns(x))
        with single_thread():
            moved = doubt.moved(self.roofline, x[:, self.design.terms], deviations)[:, :, None]
        far = self._widening * (residuals - mean)
        return np.asarray(self._log_trend(x)[None, :, None] + mean + far + moved)

    def state(self) -> ModelState:
        """Everything needed to predict, bit for bit."""
        residual, doubt = self._fitted()
        inner = residual.state()
        values = {
            "kind": self.kind, "name": self.name, "unit": self.unit, "seed": self.seed,
            "n_features": self._n_features, "terms": list(self.design.terms),
            "resources": list(self.design.term_resources), "residual": dict(inner.values),
        }  # fmt: skip
        arrays = {
            "trend.coefficients": self.roofline.coefficients,
            "trend.scalars": np.array([self.roofline.overlap, self.roofline.floor, self._widening]),
            "trend.doubt_unit": doubt.unit,
            "trend.doubt_root": doubt.root,
        }
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
        terms, resources = _integers(values["terms"], "terms"), _integers(values["resources"], "resources")
        if not isinstance(kind, str) or not isinstance(name, str) or not isinstance(unit, str):
            raise TypeError("'kind', 'name' and 'unit' must be texts")
        if not isinstance(seed, int) or not isinstance(n_features, int):
            raise TypeError("'seed' and 'n_features' must be integers")
        if not isinstance(inner, Mapping) or not str(inner.get("kind")) == kind.removeprefix(PREFIX):
            raise TypeError(f"'residual' must be the state of the model that '{kind}' names")
        if not all(0 <= term < n_features for term in terms):
            raise ValueError(f"'terms' {terms} are not among {n_features} columns")
        model = cls(kind, name, unit, seed=seed, design=Design(terms=terms, term_resources=resources))
        model._n_features = n_features
        coefficients = state.arrays["trend.coefficients"]
        if coefficients.shape != (len(terms),):
            raise ValueError(f"{len(terms)} terms, but coefficients of shape {coefficients.shape}")
        overlap, floor, model._widening = (float(v) for v in state.arrays["trend.scalars"])
        unit, root = state.arrays["trend.doubt_unit"], state.arrays["trend.doubt_root"]
        if unit.shape != (len(terms),) or root.shape != (len(terms), len(terms)):
            raise ValueError(f"{len(terms)} terms, but doubts of shapes {unit.shape} and {root.shape}")
        model._doubt = CoefficientDoubt(unit, root)
        resource = np.array(resources or [0] * len(terms), dtype=np.int64)
        model._roofline = Roofline(coefficients, resource, overlap, floor)
        prefix = "residual."
        arrays = {k.removeprefix(prefix): a for k, a in state.arrays.items() if k.startswith(prefix)}
        model._residual = model_from_state(ModelState(inner, arrays, state.boosters))
        return model


def _integers(value: object, what: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
        raise TypeError(f"'{what}' must be a list of integers")
    return tuple(value)
