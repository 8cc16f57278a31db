"""The Gaussian process of parts that was learned from sums of them (see :mod:`.sums`): what it predicts and draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

from ..errors import ModelError
from .checks import Scaling, checked_rows
from .kernels import HyperParameters, PriorDraws, covariance, prior_variance
from .models import IntArray, KernelKind, ModelState
from .prediction import DrawsBesideMean, FloatArray, Prediction
from .slopes import at_own_rows
from .threads import single_thread

CHUNK_ROWS = 1024
"""Rows per block of a prediction."""


@dataclass(frozen=True)
class SumPosterior:
    """Of f given the sums: distinct parts (u, d) standardised, weights of n values as (value, part, weight) lists.

    ``scale``: of f, by which everything else here is divided, but ``slopes`` (u, k) and
    what was ``taken_off`` (u,) the parts.
    """

    hyper: HyperParameters
    x: FloatArray
    value: IntArray
    part: IntArray
    weight: FloatArray
    noise: FloatArray
    cholesky: FloatArray
    alpha: FloatArray
    scale: float
    typical_noise: float
    slopes: FloatArray
    taken_off: FloatArray

    @cached_property
    def weights(self) -> FloatArray:
        """(n, u) weights of the parts in the values."""
        matrix = np.zeros((len(self.noise), len(self.x)))
        np.add.at(matrix, (self.value, self.part), self.weight)
        return matrix

    @cached_property
    def explained(self) -> FloatArray:
        """(n, u): of the prior covariance with the parts, what the values explain, as a factor."""
        return np.asarray(solve_triangular(self.cholesky, self.weights, lower=True))

    @cached_property
    def spread(self) -> FloatArray:
        """(u,) of the covariances with the parts, what their sum with these weights makes the mean."""
        off = cho_solve((self.cholesky, True), self.weights @ self.taken_off)
        return np.asarray((self.alpha - off / self.scale) @ self.weights)

    @cached_property
    def absorbing(self) -> FloatArray:
        """(u, k) the same of the slopes."""
        told = cho_solve((self.cholesky, True), self.weights @ self.slopes)
        return np.asarray(self.weights.T @ told)

    @cached_property
    def told(self) -> FloatArray:
        """(k, k) S' C^-1 S: what the values tell of deviations along the slopes."""
        white = solve_triangular(self.cholesky, self.weights @ self.slopes, lower=True)
        return np.asarray(white.T @ white) / self.scale**2

    @cached_property
    def pull(self) -> FloatArray:
        """(k,) S' C^-1 (y - mean): where the values pull deviations along the slopes."""
        return np.asarray((self.weights @ self.slopes).T @ self.alpha) / self.scale

    def mean(self, x: FloatArray) -> FloatArray:
        """(k,) at standardised rows (k, d)."""
        return np.asarray(
            self.scale * (self.hyper.constant + covariance(self.hyper, x, self.x) @ self.spread)
        )

    def variance(self, x: FloatArray) -> FloatArray:
        """(k,) at standardised rows (k, d)."""
        prior = prior_variance(self.hyper, x)
        known = self.explained @ covariance(self.hyper, self.x, x)
        left = np.maximum(prior - np.einsum("ij,ij->j", known, known), 1e-12 * prior)
        return np.asarray(self.scale**2 * left)


class SumProcess:
    """A single-output :class:`hadas.surrogates.models.Model` of parts; it is fitted by :func:`fit_sums`.

    Attributes:
        log_factor: c; 0 where the values do not tell.
        left_out_spread: errors of totals of networks left out, in standard deviations (see :mod:`.left_out`).
    """

    kind = "gp-sum"

    def __init__(
        self, name: str, unit: str, seed: int, scaling: Scaling, posterior: SumPosterior, log_factor: float,
        left_out_spread: float,
    ) -> None:  # fmt: skip
        self.name, self.unit, self.seed = name, unit, seed
        self.log_factor, self.left_out_spread = log_factor, left_out_spread
        self._scaling, self._posterior = scaling, posterior

    def with_slopes(self, x: FloatArray, slopes: FloatArray) -> SumProcess:
        """The same process, with slopes (m, k) at the parts (m, d) that it was fitted to."""
        own = at_own_rows(self._posterior.x, self._scaling(x), slopes)
        return self._with(replace(self._posterior, slopes=own))

    def without(self, x: FloatArray, known: FloatArray) -> SumProcess:
        """The same process of what is left when a known part (m,) is taken off its parts (m, d)."""
        own = at_own_rows(self._posterior.x, self._scaling(x), known)
        return self._with(replace(self._posterior, taken_off=own))

    def _with(self, posterior: SumPosterior) -> SumProcess:
        return SumProcess(
            self.name, self.unit, self.seed, self._scaling, posterior, self.log_factor, self.left_out_spread
        )

    @property
    def told(self) -> FloatArray:
        """(k, k) what the values tell of deviations along the slopes, beside the prior's I."""
        with single_thread():
            return self._posterior.told

    @property
    def pull(self) -> FloatArray:
        """(k,) where they pull these deviations."""
        with single_thread():
            return self._posterior.pull

    def fit(
        self, x: FloatArray, y: FloatArray, noise_variance: FloatArray | None = None,
        *, groups: IntArray | None = None,
    ) -> Self:  # fmt: skip
        """Not for single rows.

        Raises:
            ModelError: always; :func:`fit_sums` fits to sums, of which a single row is one.
        """
        raise ModelError(f"'{self.name}': a '{self.kind}' model is fitted to sums of rows by fit_sums")

    def _blocks(self, x: FloatArray) -> list[FloatArray]:
        scaled = self._scaling(checked_rows(x, len(self._scaling.mean)))
        return [scaled[start : start + CHUNK_ROWS] for start in range(0, len(scaled), CHUNK_ROWS)]

    def predict(self, x: FloatArray) -> Prediction:
        """Posterior of parts at rows ``x`` (n, d): means and variances (n, 1)."""
        posterior, blocks = self._posterior, self._blocks(x)
        with single_thread():
            mean = np.concatenate([np.empty(0), *map(posterior.mean, blocks)])[:, None]
            variance = np.concatenate([np.empty(0), *map(posterior.variance, blocks)])[:, None]
        noise = np.full_like(mean, posterior.typical_noise)
        return Prediction(mean, variance, noise, (self.name,), (self.unit,))

    def mean(self, x: FloatArray) -> FloatArray:
        """Posterior means (n, 1)."""
        with single_thread():
            return np.concatenate([np.empty(0), *map(self._posterior.mean, self._blocks(x))])[:, None]

    def paths(self, n_draws: int, seed: int) -> SumPaths:
        """Joint draws of the noise-free function of a part."""
        return SumPaths(self._posterior, self._scaling, n_draws, seed)

    def state(self) -> ModelState:
        """Everything needed to predict, bit for bit."""
        p = self._posterior
        arrays = {
            "input_mean": self._scaling.mean, "input_scale": self._scaling.scale, "x": p.x,
            "value": p.value.astype(np.float64), "part": p.part.astype(np.float64), "weight": p.weight,
            "noise": p.noise, "cholesky": p.cholesky, "alpha": p.alpha,
            "length_scale": p.hyper.length_scale, "signal_variance": p.hyper.signal_variance,
            "scalars": np.array([
                p.hyper.noise_variance, p.hyper.constant, p.scale, p.typical_noise, self.log_factor,
                self.left_out_spread,
            ]),
            "slopes": p.slopes, "taken_off": p.taken_off,
        }  # fmt: skip
        values = {
            "kind": self.kind, "name": self.name, "unit": self.unit, "seed": self.seed,
            "kernels": list(p.hyper.kernels),
        }  # fmt: skip
        return ModelState(values, arrays)

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        """The inverse of :meth:`state`.

        Raises:
            KeyError, ValueError, TypeError: the state is not one (the persistence layer says which file).
        """
        values, arrays = state.values, state.arrays
        name, unit, seed = values["name"], values["unit"], values["seed"]
        if not isinstance(name, str) or not isinstance(unit, str) or not isinstance(seed, int):
            raise TypeError("'name' and 'unit' must be texts, 'seed' an integer")
        learned, constant, scale, typical, log_factor, spread = (float(v) for v in arrays["scalars"])
        hyper = HyperParameters(
            _kernels(values), arrays["length_scale"], arrays["signal_variance"], learned, constant
        )
        value, part = arrays["value"].astype(np.int64), arrays["part"].astype(np.int64)
        n, u, d = len(arrays["noise"]), len(arrays["x"]), len(arrays["input_mean"])
        shapes = {
            "x": (u, d), "input_scale": (d,), "cholesky": (n, n), "alpha": (n,), "noise": (n,),
            "part": value.shape, "weight": value.shape, "length_scale": (len(hyper.kernels), d),
            "signal_variance": (len(hyper.kernels),), "slopes": (u, arrays["slopes"].shape[1]),
            "taken_off": (u,),
        }  # fmt: skip
        for field, shape in shapes.items():
            if arrays[field].shape != shape:
                raise ValueError(f"'{field}' has shape {arrays[field].shape}; the others make it {shape}")
        # Every value has a part, and every part belongs to a value.
        if not np.array_equal(np.unique(value), np.arange(n)) or not np.array_equal(
            np.unique(part), np.arange(u)
        ):
            raise ValueError("'value' or 'part' does not fit the arrays that it points to")
        posterior = SumPosterior(
            hyper, arrays["x"], value, part, arrays["weight"], arrays["noise"], arrays["cholesky"],
            arrays["alpha"], scale, typical, arrays["slopes"], arrays["taken_off"],
        )  # fmt: skip
        scaling = Scaling(arrays["input_mean"], arrays["input_scale"])
        return cls(name, unit, seed, scaling, posterior, log_factor, spread)


def _kernels(values: Mapping[str, object]) -> tuple[KernelKind, ...]:
    known: dict[str, KernelKind] = {"matern": "matern", "categorical": "categorical", "linear": "linear"}
    names = values["kernels"]
    if not isinstance(names, list):
        raise TypeError("'kernels' must be a list of names")
    return tuple(known[name] for name in names)


class SumPaths:
    """Draws by pathwise conditioning on sums (see :class:`.gp.GaussianProcessPaths`)."""

    N_FEATURES = 1024

    def __init__(self, posterior: SumPosterior, scaling: Scaling, n_draws: int, seed: int) -> None:
        self._posterior, self._scaling, self.n_draws = posterior, scaling, n_draws
        rng = np.random.default_rng([seed, 0])
        with single_thread():
            self._prior = PriorDraws(posterior.hyper, self.N_FEATURES, n_draws, rng)
            noise = rng.standard_normal((len(posterior.noise), n_draws)) * np.sqrt(posterior.noise)[:, None]
            missed = posterior.weights @ self._prior(posterior.x) + noise
            self._update = posterior.spread[:, None] - posterior.weights.T @ cho_solve(
                (posterior.cholesky, True), missed
            )

    def __call__(self, x: FloatArray) -> FloatArray:
        """Evaluate every draw at rows ``x`` (n, d); returns (s, n, 1)."""
        return self.beside_mean(x).draws[:, :, None]

    def beside_mean(self, x: FloatArray) -> DrawsBesideMean:
        """Every draw, the posterior's mean, and what its values take up of the slopes, at rows ``x`` (n, d)."""
        scaled, posterior = self._scaling(checked_rows(x, len(self._scaling.mean))), self._posterior
        hyper, scale = posterior.hyper, posterior.scale
        draws, mean = np.empty((self.n_draws, len(scaled))), np.empty(len(scaled))
        absorbed = np.empty((len(scaled), posterior.slopes.shape[1]))
        with single_thread():
            for start in range(0, len(scaled), CHUNK_ROWS):
                rows = slice(start, start + CHUNK_ROWS)
                cross = covariance(hyper, scaled[rows], posterior.x)
                draw = self._prior(scaled[rows])
                draw += cross @ self._update
                draws[:, rows] = (scale * (hyper.constant + draw)).T
                mean[rows] = scale * (hyper.constant + cross @ posterior.spread)
                absorbed[rows] = cross @ posterior.absorbing
        return DrawsBesideMean(draws, mean, absorbed)
