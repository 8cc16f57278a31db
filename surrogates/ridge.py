"""Bayesian ridge regression: a linear function of the features, with the penalty that the data ask for.

y = w . phi(x) + noise, w ~ Normal(0, diag(prior)), known noise per row plus a learned one; the two
hyper-parameters (variance of the weights and of the noise) maximise the evidence (Bishop 2006,
section 3.5, with unequal noise).  Nothing about the posterior is approximate, its draws neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from ..errors import ModelError
from .checks import Scaling, checked_data, checked_rows, target_scaling
from .models import Design, IntArray, ModelState
from .prediction import FloatArray, Prediction
from .threads import single_thread

INTERCEPT_VARIANCE = 10.0
"""Prior variance of the constant, in units of the target's variance."""

_LOG_BOUNDS = ((np.log(1e-6), np.log(1e2)), (np.log(1e-6), np.log(1e1)))


@dataclass(frozen=True)
class Basis:
    """What weights are for: a constant, standardised columns, and an indicator per category.

    Attributes:
        scaling: of all d columns.
        linear: columns taken as numbers.
        levels: per column of categories, the values seen; a value never seen has an indicator of
            its own, whose weight is left to the prior.
    """

    scaling: Scaling
    linear: IntArray
    levels: tuple[tuple[int, FloatArray], ...]

    @classmethod
    def of(cls, x: FloatArray, design: Design) -> Basis:
        """From training rows (n, d).  Columns that only categorical parts see count as categories."""
        categories = {c for part in design.parts if part.kernel == "categorical" for c in part.columns}
        numbers = {c for part in design.parts if part.kernel != "categorical" for c in part.columns}
        only = sorted(categories - numbers)
        linear = np.setdiff1d(np.arange(x.shape[1]), np.array(only, dtype=np.int64))
        return cls(Scaling.of_inputs(x), linear, tuple((c, np.unique(x[:, c])) for c in only))

    def __call__(self, x: FloatArray) -> FloatArray:
        """Basis functions (n, p) of rows (n, d)."""
        parts = [np.ones((len(x), 1)), self.scaling(x)[:, self.linear]]
        for column, levels in self.levels:
            same = x[:, column, None] == levels
            parts += [same.astype(np.float64), 1.0 - same.any(axis=1, keepdims=True)]
        return np.hstack(parts)


@dataclass(frozen=True)
class _Output:
    """One output's posterior in standardised units: weights (p,) and the Cholesky factor of their precision."""

    weights: FloatArray
    precision_cholesky: FloatArray
    y_mean: float
    y_scale: float
    noise: float


class BayesianRidge:
    """Ridge regression; a :class:`hadas.surrogates.prediction.Predictor`.

    Args:
        names, units: of the m outputs.
        seed: kept with the model; the fit needs none.
        design: which columns hold categories.
    """

    kind = "ridge"

    def __init__(
        self, names: tuple[str, ...] = ("y",), units: tuple[str, ...] = ("",), *, seed: int = 0,
        design: Design | None = None,
    ) -> None:  # fmt: skip
        self.names, self.units, self.seed = names, units, seed
        self.design = design or Design()
        self._basis: Basis | None = None
        self._outputs: tuple[_Output, ...] = ()

    def fit(
        self, x: FloatArray, y: FloatArray, noise_variance: FloatArray | None = None,
        *, groups: IntArray | None = None,
    ) -> Self:  # fmt: skip
        """Fit to ``x`` (n, d), ``y`` (n, m); NaN in ``y`` = not measured.

        Args:
            noise_variance: (n, m) known variance of each value; a learned one is added to it.
            groups: not needed by this model, which holds nothing out.

        Raises:
            ModelError: bad shapes or values, or an output without data.
        """
        x, y, noise = checked_data(x, y, noise_variance, self.names)
        with single_thread():
            self._basis = Basis.of(x, self.design)
            phi = self._basis(x)
            outputs = []
            for column in range(y.shape[1]):
                rows = np.isfinite(y[:, column])
                outputs.append(_fit_output(phi[rows], y[rows, column], noise[rows, column]))
            self._outputs = tuple(outputs)
        return self

    @property
    def _fitted_basis(self) -> Basis:
        if self._basis is None:
            raise ModelError("the ridge regression has not been fitted; call fit first")
        return self._basis

    def _phi(self, x: FloatArray) -> FloatArray:
        basis = self._fitted_basis
        return basis(checked_rows(x, len(basis.scaling.mean)))

    def predict(self, x: FloatArray) -> Prediction:
        """Posterior at rows ``x`` (n, d): means and variances (n, m)."""
        phi = self._phi(x)
        shape = (len(phi), len(self._outputs))
        mean, variance, noise = np.empty(shape), np.empty(shape), np.empty(shape)
        with single_thread():
            for column, output in enumerate(self._outputs):
                mean[:, column] = output.y_mean + output.y_scale * (phi @ output.weights)
                root = solve_triangular(output.precision_cholesky, phi.T, lower=True, check_finite=False)
                variance[:, column] = output.y_scale**2 * np.einsum("ij,ij->j", root, root)
                noise[:, column] = output.y_scale**2 * output.noise
        return Prediction(mean, variance, noise, self.names, self.units)

    def mean(self, x: FloatArray) -> FloatArray:
        """Posterior means (n, m)."""
        phi = self._phi(x)
        with single_thread():
            return np.stack([o.y_mean + o.y_scale * (phi @ o.weights) for o in self._outputs], axis=1)

    def paths(self, n_draws: int, seed: int) -> RidgePaths:
        """Joint draws of the noise-free functions, as functions of the row."""
        return RidgePaths(self._outputs, self._fitted_basis, n_draws, seed)

    def state(self) -> ModelState:
        """Everything needed to predict, bit for bit."""
        basis = self._fitted_basis
        arrays = {"input_mean": basis.scaling.mean, "input_scale": basis.scaling.scale}
        arrays |= {f"levels.{column}": levels for column, levels in basis.levels}
        for i, output in enumerate(self._outputs):
            arrays |= {
                f"{i}.weights": output.weights, f"{i}.precision_cholesky": output.precision_cholesky,
                f"{i}.scalars": np.array([output.y_mean, output.y_scale, output.noise]),
            }  # fmt: skip
        values = {
            "kind": self.kind, "names": list(self.names), "units": list(self.units), "seed": self.seed,
            "linear": [int(column) for column in basis.linear],
            "categorical": [column for column, _ in basis.levels],
        }  # fmt: skip
        return ModelState(values, arrays)

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        """The inverse of :meth:`state`.

        Raises:
            KeyError, ValueError, TypeError: the state is not one (the persistence layer says which file).
        """
        arrays, values = state.arrays, state.values
        names, units, seed = values["names"], values["units"], values["seed"]
        linear, categorical = values["linear"], values["categorical"]
        if not all(isinstance(v, list) for v in (names, units, linear, categorical)):
            raise TypeError("'names', 'units', 'linear' and 'categorical' must be lists")
        assert isinstance(names, list)
        assert isinstance(units, list)
        assert isinstance(categorical, list)
        if not isinstance(seed, int):
            raise TypeError("'seed' must be an integer")
        model = cls(tuple(names), tuple(units), seed=seed)
        model._basis = Basis(
            Scaling(arrays["input_mean"], arrays["input_scale"]),
            np.array(linear, dtype=np.int64),
            tuple((int(column), arrays[f"levels.{column}"]) for column in categorical),
        )
        model._outputs = tuple(
            _Output(
                arrays[f"{i}.weights"],
                arrays[f"{i}.precision_cholesky"],
                *(float(v) for v in arrays[f"{i}.scalars"]),
            )
            for i in range(len(names))
        )
        return model


class RidgePaths:
    """Draws of the weights: linear functions."""

    def __init__(self, outputs: tuple[_Output, ...], basis: Basis, n_draws: int, seed: int) -> None:
        self._outputs, self._basis, self.n_draws = outputs, basis, n_draws
        self._weights: list[FloatArray] = []
        with single_thread():
            for column, output in enumerate(outputs):
                rng = np.random.default_rng([seed, column])
                normal = rng.standard_normal((len(output.weights), n_draws))
                deviation = solve_triangular(output.precision_cholesky, normal, lower=True, trans="T")
                self._weights.append(output.weights[:, None] + deviation)

    def __call__(self, x: FloatArray) -> FloatArray:
        """Evaluate every draw at rows ``x`` (n, d); returns (s, n, m)."""
        phi = self._basis(checked_rows(x, len(self._basis.scaling.mean)))
        values = np.empty((self.n_draws, len(phi), len(self._outputs)))
        with single_thread():
            for column, (output, weights) in enumerate(zip(self._outputs, self._weights, strict=True)):
                values[:, :, column] = output.y_mean + output.y_scale * (phi @ weights).T
        return values


def _fit_output(phi: FloatArray, y: FloatArray, noise: FloatArray) -> _Output:
    y_mean, y_scale, varies = target_scaling(y, noise)
    target, known = (y - y_mean) / y_scale, noise / y_scale**2
    weight_variance, learned = 1.0, 1e-3
    if varies and len(y) >= 3:
        weight_variance, learned = _most_evident(phi, target, known)
    weights, factor = _posterior(phi, target, known + learned, weight_variance)
    return _Output(weights, factor, y_mean, y_scale, learned + float(np.median(known)))


def _prior_precision(n_weights: int, weight_variance: float) -> FloatArray:
    precision = np.full(n_weights, 1.0 / weight_variance)
    precision[0] = 1.0 / INTERCEPT_VARIANCE
    return precision


def _posterior(
    phi: FloatArray, target: FloatArray, noise: FloatArray, weight_variance: float
) -> tuple[FloatArray, FloatArray]:
    """Mean weights (p,) and Cholesky factor (p, p) of their precision (Bishop 2006, eq. 3.50 and 3.51)."""
    precision = (phi / noise[:, None]).T @ phi
    precision[np.diag_indices(len(precision))] += _prior_precision(phi.shape[1], weight_variance)
    factor: FloatArray = cholesky(precision, lower=True)
    return cho_solve((factor, True), phi.T @ (target / noise)), factor


def _most_evident(phi: FloatArray, target: FloatArray, known: FloatArray) -> tuple[float, float]:
    """Variances of the weights and of the noise that maximise the evidence.

    log N(y; 0, phi W phi' + S), by the matrix determinant and inversion lemmas in p dimensions.
    """

    def loss(log_values: FloatArray) -> float:
        weight_variance, learned = np.exp(log_values)
        noise = known + learned
        weights, factor = _posterior(phi, target, noise, weight_variance)
        explained = target @ ((phi @ weights) / noise)
        log_determinant = (
            2 * np.log(np.diagonal(factor)).sum()
            - np.log(_prior_precision(phi.shape[1], weight_variance)).sum()
            + np.log(noise).sum()
        )
        return float(np.sum(target**2 / noise) - explained + log_determinant)

    starts = [np.log([w, s]) for w in (1e-2, 1.0) for s in (1e-3, 1e-1)]
    found = minimize(loss, min(starts, key=loss), bounds=_LOG_BOUNDS, method="L-BFGS-B")
    # Rounded, so that the last bits of sums do not reach predictions.
    return float(f"{np.exp(found.x[0]):.4g}"), float(f"{np.exp(found.x[1]):.4g}")
