"""Gaussian-process regression: GPyTorch fits the hyper-parameters, numpy predicts.

Kernel: Matern-5/2 with one length scale per feature, or the sum of the design's parts (see
``kernels``).  Inputs and outputs are standardised, outputs are independent of each other.
Prediction uses cached Cholesky factors, several times faster than a GPyTorch posterior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, get_args

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from ..errors import ModelError
from .checks import Scaling, checked_data, checked_rows, target_scaling
from .gp_fit import MIN_NOISE, fit_hyper_parameters
from .kernels import HyperParameters, PriorDraws, covariance, prior_variance
from .models import Design, IntArray, KernelKind, KernelPart, ModelState
from .prediction import FloatArray, Prediction
from .threads import single_thread

CHUNK_ROWS = 1024
"""Rows per block of a prediction: large enough for BLAS, small enough for the cache."""


@dataclass(frozen=True)
class _Output:
    """One output's posterior.  ``x``: (n, d) standardised training rows."""

    x: FloatArray
    alpha: FloatArray
    cholesky: FloatArray
    row_noise: FloatArray
    hyper: HyperParameters
    y_mean: float
    y_scale: float
    typical_noise: float


class GaussianProcess:
    """Exact Gaussian-process regression; a :class:`hadas.surrogates.prediction.Predictor`.

    Args:
        names, units: of the m outputs.
        seed: chooses the rows where there are more than the caps.
        max_rows: rows that the posterior is conditioned on; of more, a random subset
            (the first ``max_rows`` of a seeded permutation, kept in the given order).
        fit_rows: rows of that subset that the hyper-parameters are fitted to, chosen alike.
        max_iterations: L-BFGS iterations of that fit.
        design: the functions that add up, each with its kernel.
    """

    kind = "gp"

    def __init__(
        self, names: tuple[str, ...] = ("y",), units: tuple[str, ...] = ("",), *, seed: int = 0,
        max_rows: int = 1500, fit_rows: int = 400, max_iterations: int = 60,
        design: Design | None = None,
    ) -> None:  # fmt: skip
        self.names, self.units, self.seed = names, units, seed
        self.max_rows, self.fit_rows, self.max_iterations = max_rows, fit_rows, max_iterations
        self.design = design or Design()
        self._scaling: Scaling | None = None
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
            self._scaling = Scaling.of_inputs(x)
            scaled = self._scaling(x)
            outputs = []
            for column in range(y.shape[1]):
                rows = self._subset(np.flatnonzero(np.isfinite(y[:, column])), self.max_rows)
                outputs.append(self._fit_output(scaled[rows], y[rows, column], noise[rows, column]))
            self._outputs = tuple(outputs)
        return self

    def _subset(self, rows: IntArray, limit: int) -> IntArray:
        if len(rows) <= limit:
            return rows
        chosen = np.random.default_rng(self.seed).permutation(len(rows))[:limit]
        return np.asarray(rows[np.sort(chosen)])

    def _fit_output(self, x: FloatArray, y: FloatArray, noise: FloatArray) -> _Output:
        y_mean, y_scale, varies = target_scaling(y)
        target, known = (y - y_mean) / y_scale, noise / y_scale**2
        hyper = HyperParameters.default(
            x.shape[1], self.design.parts or (KernelPart(tuple(range(x.shape[1]))),)
        )
        if varies and len(y) >= 3:
            rows = self._subset(np.arange(len(y)), self.fit_rows)
            hyper = fit_hyper_parameters(x[rows], target[rows], known[rows], hyper, self.max_iterations)
        return condition(x, target, known, hyper, y_mean, y_scale)

    @property
    def _fitted_scaling(self) -> Scaling:
        if self._scaling is None:
            raise ModelError("the Gaussian process has not been fitted; call fit first")
        return self._scaling

    def _scaled(self, x: FloatArray) -> FloatArray:
        scaling = self._fitted_scaling
        return scaling(checked_rows(x, len(scaling.mean)))

    def predict(self, x: FloatArray) -> Prediction:
        """Marginal posterior at rows ``x`` (n, d): means and variances (n, m)."""
        scaled = self._scaled(x)
        shape = (len(scaled), len(self._outputs))
        mean, variance, noise = np.empty(shape), np.empty(shape), np.empty(shape)
        with single_thread():
            for column, output in enumerate(self._outputs):
                noise[:, column] = output.typical_noise
                for start in range(0, len(scaled), CHUNK_ROWS):
                    rows = slice(start, start + CHUNK_ROWS)
                    mean[rows, column], variance[rows, column] = _posterior(output, scaled[rows])
        return Prediction(mean, variance, noise, self.names, self.units)

    def mean(self, x: FloatArray) -> FloatArray:
        """Posterior means (n, m) alone: several times faster than :meth:`predict`."""
        scaled = self._scaled(x)
        mean = np.empty((len(scaled), len(self._outputs)))
        with single_thread():
            for column, output in enumerate(self._outputs):
                for start in range(0, len(scaled), CHUNK_ROWS):
                    rows = slice(start, start + CHUNK_ROWS)
                    cross = covariance(output.hyper, scaled[rows], output.x)
                    mean[rows, column] = output.y_mean + output.y_scale * (
                        output.hyper.constant + cross @ output.alpha
                    )
        return mean

    def paths(self, n_draws: int, seed: int) -> GaussianProcessPaths:
        """Joint draws of the noise-free functions, as functions of the row."""
        return GaussianProcessPaths(self._outputs, self._fitted_scaling, n_draws, seed)

    def state(self) -> ModelState:
        """Everything needed to predict, bit for bit."""
        scaling = self._fitted_scaling
        arrays = {"input_mean": scaling.mean, "input_scale": scaling.scale}
        for i, output in enumerate(self._outputs):
            hyper = output.hyper
            arrays |= {
                f"{i}.x": output.x, f"{i}.alpha": output.alpha, f"{i}.cholesky": output.cholesky,
                f"{i}.row_noise": output.row_noise, f"{i}.length_scale": hyper.length_scale,
                f"{i}.signal_variance": hyper.signal_variance,
                f"{i}.scalars": np.array([
                    hyper.noise_variance, hyper.constant, output.y_mean, output.y_scale, output.typical_noise,
                ]),
            }  # fmt: skip
        values = {
            "kind": self.kind, "names": list(self.names), "units": list(self.units), "seed": self.seed,
            "kernels": [list(output.hyper.kernels) for output in self._outputs],
        }  # fmt: skip
        return ModelState(values, arrays)

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        """The inverse of :meth:`state`.

        Raises:
            KeyError, ValueError, TypeError: the state is not one (the persistence layer says which file).
        """
        arrays = state.arrays
        names, units, seed = state.values["names"], state.values["units"], state.values["seed"]
        if not isinstance(names, list) or not isinstance(units, list) or not isinstance(seed, int):
            raise TypeError("'names' and 'units' must be lists, 'seed' an integer")
        model = cls(tuple(names), tuple(units), seed=seed)
        kernels = _saved_kernels(state.values["kernels"], len(names))
        model._scaling = Scaling(arrays["input_mean"], arrays["input_scale"])
        outputs = []
        for i in range(len(names)):
            noise, constant, y_mean, y_scale, typical = (float(v) for v in arrays[f"{i}.scalars"])
            signal = arrays[f"{i}.signal_variance"]
            hyper = HyperParameters(kernels[i], arrays[f"{i}.length_scale"], signal, noise, constant)
            outputs.append(
                _Output(
                    arrays[f"{i}.x"],
                    arrays[f"{i}.alpha"],
                    arrays[f"{i}.cholesky"],
                    hyper=hyper,
                    row_noise=arrays[f"{i}.row_noise"],
                    y_mean=y_mean,
                    y_scale=y_scale,
                    typical_noise=typical,
                )
            )
        model._outputs = tuple(outputs)
        return model


def _saved_kernels(saved: object, n_outputs: int) -> list[tuple[KernelKind, ...]]:
    if not isinstance(saved, list) or len(saved) != n_outputs:
        raise TypeError(f"'kernels' must list those of {n_outputs} outputs")
    unknown = {kernel for kernels in saved for kernel in kernels} - set(get_args(KernelKind))
    if unknown:
        raise ValueError(f"no kernel {sorted(map(str, unknown))}; known: {list(get_args(KernelKind))}")
    return [tuple(kernels) for kernels in saved]


class GaussianProcessPaths:
    """Draws by pathwise conditioning: a prior draw plus the update that makes it meet the data.

    Wilson et al. (2020), "Efficiently sampling functions from Gaussian process posteriors",
    eq. 13: f(x) + k(x, X) (K + S)^-1 (y - f(X) - e), with f a prior draw from random Fourier
    features and e a draw of the noise with covariance S.
    """

    N_FEATURES = 1024

    def __init__(self, outputs: tuple[_Output, ...], scaling: Scaling, n_draws: int, seed: int) -> None:
        self._outputs, self._scaling, self.n_draws = outputs, scaling, n_draws
        self._priors: list[PriorDraws] = []
        self._updates: list[FloatArray] = []
        with single_thread():
            for column, output in enumerate(outputs):
                rng = np.random.default_rng([seed, column])
                prior = PriorDraws(output.hyper, self.N_FEATURES, n_draws, rng)
                noise = rng.standard_normal((len(output.x), n_draws)) * np.sqrt(output.row_noise)[:, None]
                missed = prior(output.x) + noise
                correction = cho_solve((output.cholesky, True), missed)
                self._priors.append(prior)
                self._updates.append(np.ascontiguousarray(output.alpha[:, None] - correction))

    def __call__(self, x: FloatArray) -> FloatArray:
        """Evaluate every draw at rows ``x`` (n, d); returns (s, n, m)."""
        scaled = self._scaling(checked_rows(x, len(self._scaling.mean)))
        values = np.empty((self.n_draws, len(scaled), len(self._outputs)))
        with single_thread():
            for column, output in enumerate(self._outputs):
                for start in range(0, len(scaled), CHUNK_ROWS):
                    rows = slice(start, start + CHUNK_ROWS)
                    draw = self._priors[column](scaled[rows])
                    draw += covariance(output.hyper, scaled[rows], output.x) @ self._updates[column]
                    draw = output.y_mean + output.y_scale * (output.hyper.constant + draw)
                    values[:, rows, column] = draw.T
        return values


def _posterior(output: _Output, scaled: FloatArray) -> tuple[FloatArray, FloatArray]:
    cross = covariance(output.hyper, scaled, output.x)
    prior = prior_variance(output.hyper, scaled)
    mean = output.y_mean + output.y_scale * (output.hyper.constant + cross @ output.alpha)
    explained = solve_triangular(output.cholesky, cross.T, lower=True, check_finite=False)
    variance = prior - np.einsum("ij,ij->j", explained, explained)
    return mean, output.y_scale**2 * np.maximum(variance, 1e-12 * (prior + MIN_NOISE))


def condition(
    x: FloatArray,
    target: FloatArray,
    known: FloatArray,
    hyper: HyperParameters,
    y_mean: float,
    y_scale: float,
) -> _Output:
    """Posterior of one output given its hyper-parameters.

    Args:
        x: (n, d) standardised rows; target: (n,) standardised; known: (n,) noise variance in
            standardised units.
    """
    noise = known + max(hyper.noise_variance, MIN_NOISE)
    total = covariance(hyper, x, x)
    np.fill_diagonal(total, prior_variance(hyper, x) + noise)
    factor, _ = cho_factor(total, lower=True)
    cholesky = np.ascontiguousarray(np.tril(factor))
    alpha = cho_solve((cholesky, True), target - hyper.constant)
    typical = y_scale**2 * (max(hyper.noise_variance, MIN_NOISE) + float(np.median(known)))
    return _Output(
        np.ascontiguousarray(x), np.ascontiguousarray(alpha), cholesky, noise, hyper, y_mean, y_scale, typical
    )
