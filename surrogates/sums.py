"""A Gaussian process of parts, learned from sums of them.

Measured is y = c z + log(sum over parts j of exp(o_j + f(x_j))) + noise, where o_j is known, f is a Gaussian
process and c the unknown log factor of values with z = 1 (programs that fuse their parts).  To first
order the log of a sum is the mean of its parts' f, weighted by their shares in the sum, so the posterior is
that of a Gaussian process observed through a matrix of weights.  Shares follow from f, so both are found in
turns (Gauss-Newton); hyper-parameters are fitted to the parts as attributed so far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.sparse import csr_array

from ..errors import ModelError
from .checks import FEW_ROWS_SCALE, Scaling, checked_rows
from .gp_fit import MIN_NOISE, fit_hyper_parameters
from .kernels import HyperParameters, PriorDraws, covariance, prior_variance
from .models import Design, IntArray, KernelKind, KernelPart, ModelState
from .prediction import FloatArray, Prediction
from .threads import single_thread

MAX_PARTS = 1500
"""Distinct parts that a posterior is conditioned on; of more, those of a random subset of the values."""

MAX_VALUES = 2000
"""Values that it is conditioned on, repeats counted as one; memory grows with their square."""

FIT_PARTS = 400
"""Parts that hyper-parameters are fitted to."""

CHUNK_ROWS = 1024
"""Rows per block of a prediction."""

N_ROUNDS = 8
"""Gauss-Newton steps at most; three or four are enough where the known part is good."""


@dataclass(frozen=True)
class SumRows:
    """n measured sums of m parts in all.

    Attributes:
        x: (m, d) features of the parts.
        offset: (m,) known part o_j of each part's log.
        row: (m,) which value each part belongs to, ascending; every value has one.
        y: (n,) logs of the values.
        noise_variance: (n,) known variances of them.
        fused: (n,) z.
        design: what is known of the feature columns.
    """

    x: FloatArray
    offset: FloatArray
    row: IntArray
    y: FloatArray
    noise_variance: FloatArray
    fused: NDArray[np.bool_]
    design: Design

    @cached_property
    def starts(self) -> IntArray:
        """(n,) first part of each value."""
        return np.searchsorted(self.row, np.arange(len(self.y)))

    def take(self, rows: NDArray[np.bool_]) -> SumRows:
        """The values (n,) chosen by a mask."""
        parts = rows[self.row]
        kept = np.cumsum(rows) - 1
        return replace(
            self, x=self.x[parts], offset=self.offset[parts], row=kept[self.row[parts]], y=self.y[rows],
            noise_variance=self.noise_variance[rows], fused=self.fused[rows],
        )  # fmt: skip

    def log_sums(self, f: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Logs (n,) of the sums for part residuals (m,), and the share (m,) of each part in its sum."""
        log_part = self.offset + f
        top = np.maximum.reduceat(log_part, self.starts)
        part = np.exp(log_part - top[self.row])
        total = np.add.reduceat(part, self.starts)
        return top + np.log(total), part / total[self.row]


@dataclass(frozen=True)
class _Posterior:
    """Of f given the sums: distinct parts (u, d) standardised, weights of n values as (value, part, weight) lists.

    ``scale``: of f, by which everything else here is divided.
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

    def mean(self, x: FloatArray) -> FloatArray:
        """(k,) at standardised rows (k, d)."""
        spread = self.alpha @ self.weights
        return np.asarray(self.scale * (self.hyper.constant + covariance(self.hyper, x, self.x) @ spread))

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
    """

    kind = "gp-sum"

    def __init__(
        self, name: str, unit: str, seed: int, scaling: Scaling, posterior: _Posterior, log_factor: float
    ) -> None:
        self.name, self.unit, self.seed, self.log_factor = name, unit, seed, log_factor
        self._scaling, self._posterior = scaling, posterior

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
            ]),
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
        learned, constant, scale, typical, log_factor = (float(v) for v in arrays["scalars"])
        hyper = HyperParameters(
            _kernels(values), arrays["length_scale"], arrays["signal_variance"], learned, constant
        )
        value, part = arrays["value"].astype(np.int64), arrays["part"].astype(np.int64)
        n, u, d = len(arrays["noise"]), len(arrays["x"]), len(arrays["input_mean"])
        shapes = {
            "x": (u, d), "input_scale": (d,), "cholesky": (n, n), "alpha": (n,), "noise": (n,),
            "part": value.shape, "weight": value.shape, "length_scale": (len(hyper.kernels), d),
            "signal_variance": (len(hyper.kernels),),
        }  # fmt: skip
        for field, shape in shapes.items():
            if arrays[field].shape != shape:
                raise ValueError(f"'{field}' has shape {arrays[field].shape}; the others make it {shape}")
        # Every value has a part, and every part belongs to a value.
        if not np.array_equal(np.unique(value), np.arange(n)) or not np.array_equal(
            np.unique(part), np.arange(u)
        ):
            raise ValueError("'value' or 'part' does not fit the arrays that it points to")
        posterior = _Posterior(
            hyper, arrays["x"], value, part, arrays["weight"], arrays["noise"], arrays["cholesky"],
            arrays["alpha"], scale, typical,
        )  # fmt: skip
        scaling = Scaling(arrays["input_mean"], arrays["input_scale"])
        return cls(name, unit, seed, scaling, posterior, log_factor)


def _kernels(values: Mapping[str, object]) -> tuple[KernelKind, ...]:
    known: dict[str, KernelKind] = {"matern": "matern", "categorical": "categorical", "linear": "linear"}
    names = values["kernels"]
    if not isinstance(names, list):
        raise TypeError("'kernels' must be a list of names")
    return tuple(known[name] for name in names)


class SumPaths:
    """Draws by pathwise conditioning on sums (see :class:`.gp.GaussianProcessPaths`)."""

    N_FEATURES = 1024

    def __init__(self, posterior: _Posterior, scaling: Scaling, n_draws: int, seed: int) -> None:
        self._posterior, self._scaling, self.n_draws = posterior, scaling, n_draws
        rng = np.random.default_rng([seed, 0])
        with single_thread():
            self._prior = PriorDraws(posterior.hyper, self.N_FEATURES, n_draws, rng)
            noise = rng.standard_normal((len(posterior.noise), n_draws)) * np.sqrt(posterior.noise)[:, None]
            missed = posterior.weights @ self._prior(posterior.x) + noise
            update = posterior.alpha[:, None] - cho_solve((posterior.cholesky, True), missed)
            self._update = posterior.weights.T @ update

    def __call__(self, x: FloatArray) -> FloatArray:
        """Evaluate every draw at rows ``x`` (n, d); returns (s, n, 1)."""
        scaled = self._scaling(checked_rows(x, len(self._scaling.mean)))
        values = np.empty((self.n_draws, len(scaled), 1))
        hyper = self._posterior.hyper
        with single_thread():
            for start in range(0, len(scaled), CHUNK_ROWS):
                rows = slice(start, start + CHUNK_ROWS)
                draw = self._prior(scaled[rows])
                draw += covariance(hyper, scaled[rows], self._posterior.x) @ self._update
                values[:, rows, 0] = (self._posterior.scale * (hyper.constant + draw)).T
        return values


def fit_sums(name: str, unit: str, rows: SumRows, *, seed: int) -> SumProcess:
    """Fit to sums; values of one part, if there are any, say what a fused program's factor is.

    Raises:
        ModelError: no value.
    """
    if not len(rows.y):
        raise ModelError(f"'{name}': not one valid measurement to train on; measure some first")
    rows, single = _pooled(rows)
    kept = _capped(rows, seed)
    rows, single = rows.take(kept), single[kept]
    with single_thread():
        scaling = Scaling.of_inputs(rows.x)
        distinct, part = np.unique(scaling(rows.x), axis=0, return_inverse=True)
        part = np.asarray(part.reshape(-1), dtype=np.int64)
        parts = rows.design.parts or (KernelPart(tuple(range(rows.x.shape[1]))),)
        hyper = HyperParameters.default(rows.x.shape[1], parts)
        f, factor = np.zeros(len(rows.x)), 0.0
        for _ in range(2):
            scale, hyper = _fit_hyper(rows, distinct, part, f, factor, hyper, seed)
            posterior, f, factor = _solve(rows, single, distinct, part, hyper, scale)
    return SumProcess(name, unit, seed, scaling, posterior, factor)


def _pooled(rows: SumRows) -> tuple[SumRows, FloatArray]:
    """Repeats of the same sum as one value, and the variance (n,) of a single measurement of each.

    Repeats are averaged by their precision.  Where they scatter more than their known noise, by which all
    repeats are judged together, what is more is noise of each of them.
    """
    part = _index(rows.x)
    parts = np.split(part, rows.starts[1:])
    keys = [(bool(fused), *sorted(own.tolist())) for fused, own in zip(rows.fused, parts, strict=True)]
    first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
    kept = np.zeros(len(keys), dtype=np.bool_)
    kept[list(first.values())] = True
    owner = (np.cumsum(kept) - 1)[[first[key] for key in keys]]
    count = np.bincount(owner)
    if len(count) == len(keys):
        return rows, rows.noise_variance
    known, freedom = rows.noise_variance, len(keys) - len(count)
    squares = (rows.y - (np.bincount(owner, rows.y) / count)[owner]) ** 2
    expected = float((known * (1.0 - 1.0 / count[owner])).sum())
    single = np.maximum(known + max(0.0, float(squares.sum()) - expected) / freedom, 1e-12)
    precision = np.bincount(owner, 1.0 / single)
    pooled = replace(
        rows.take(kept), y=np.bincount(owner, rows.y / single) / precision, noise_variance=1.0 / precision
    )
    return pooled, count / precision


def _index(x: FloatArray) -> IntArray:
    """(m,) which of the distinct rows each row of (m, d) is."""
    return np.asarray(np.unique(x, axis=0, return_inverse=True)[1].reshape(-1), dtype=np.int64)


def _capped(rows: SumRows, seed: int) -> NDArray[np.bool_]:
    """(n,) which values are conditioned on: of more than can be, or of more distinct parts, a random subset."""
    part = _index(rows.x)
    order = np.random.default_rng(seed).permutation(len(rows.y))
    rank = np.argsort(order)
    first = np.full(int(part.max()) + 1, len(order))
    np.minimum.at(first, part, rank[rows.row])
    n_parts = np.cumsum(np.bincount(first, minlength=len(order)))
    n_values = min(MAX_VALUES, int(np.searchsorted(n_parts, MAX_PARTS, side="right")))
    return np.asarray(rank < max(1, n_values))


def _fit_hyper(
    rows: SumRows, distinct: FloatArray, part: IntArray, f: FloatArray, factor: float,
    start: HyperParameters, seed: int,
) -> tuple[float, HyperParameters]:  # fmt: skip
    """Scale of f, and hyper-parameters in units of it, fitted to the parts as f attributes the values to them.

    Each part takes its value's misfit whole; how far that may be from the part's own is counted as
    noise, by the share that the other parts have in the value.
    """
    log_sum, share = rows.log_sums(f)
    misfit = rows.y - log_sum - factor * rows.fused
    target = f + misfit[rows.row]
    scale = float(target.std())
    # One value, or several that agree, say nothing of the scale; a log's natural one is 1.
    scale = float(np.hypot(scale, FEW_ROWS_SCALE / len(rows.y) ** 2)) if scale > 1e-9 else 1.0 / len(rows.y)
    others = (1.0 - share) ** 2 * float(target.var())
    noise = (rows.noise_variance[rows.row] + others) / scale**2
    if len(distinct) < 3:
        return scale, start
    # The same part in several values: the one that tells most of it, or the mean of those that tell as much.
    best = np.full(len(distinct), np.inf)
    np.minimum.at(best, part, noise)
    clearest = np.flatnonzero(noise <= best[part] * (1 + 1e-6))
    own, told = part[clearest], target[clearest] / scale
    of_part = np.bincount(own, told) / np.bincount(own)
    best = np.maximum(best, np.bincount(own, (told - of_part[own]) ** 2) / np.bincount(own) ** 2)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(distinct))[:FIT_PARTS])
    return scale, fit_hyper_parameters(distinct[chosen], of_part[chosen], best[chosen], start, 60)


def _solve(
    rows: SumRows,
    single: FloatArray,
    distinct: FloatArray,
    part: IntArray,
    hyper: HyperParameters,
    scale: float,
) -> tuple[_Posterior, FloatArray, float]:
    """Posterior, residuals (m,) of the parts, and c, by Gauss-Newton from f = 0 on.

    Args:
        single: (n,) variance of one measurement of each value.
    """
    prior = covariance(hyper, distinct, distinct)
    noise = rows.noise_variance / scale**2 + max(hyper.noise_variance, MIN_NOISE)
    z = rows.fused.astype(np.float64)
    tells = bool(z.any() and (z == 0).any())
    f, factor = np.zeros(len(rows.x)), 0.0
    for _ in range(N_ROUNDS):
        log_sum, share = rows.log_sums(f)
        # Relative errors of independent parts cancel in a sum, so a single part's is the larger.
        of_part = single / np.add.reduceat(share**2, rows.starts)
        typical = scale**2 * max(hyper.noise_variance, MIN_NOISE) + float(np.median(of_part))
        posterior = _Posterior(
            hyper, distinct, rows.row, part, share, noise, np.empty((0, 0)), np.empty(0), scale, typical
        )
        weights = csr_array((share, (rows.row, part)), shape=(len(z), len(distinct)))
        # To first order log_sum(f + d) = log_sum(f) + weights . d.
        observed = (rows.y - log_sum + np.add.reduceat(share * f, rows.starts)) / scale - hyper.constant
        total = np.asarray(weights @ (weights @ prior).T)
        total[np.diag_indices_from(total)] += noise
        factor_of = np.ascontiguousarray(cholesky(total, lower=True))
        if tells:
            solved = cho_solve((factor_of, True), z)
            factor = float(solved @ observed / (solved @ z)) * scale
        alpha = cho_solve((factor_of, True), observed - factor / scale * z)
        posterior = replace(posterior, cholesky=factor_of, alpha=alpha)
        step = scale * (hyper.constant + prior @ (weights.T @ alpha))[part]
        settled = float(np.max(np.abs(step - f))) < 1e-4
        f = step
        if settled:
            break
    return posterior, f, factor


def sums_of(values: FloatArray, starts: Sequence[int] | IntArray) -> FloatArray:
    """Sums (n, k) of blocks of rows (m, k) that begin at ``starts`` (n,)."""
    return np.asarray(np.add.reduceat(values, starts, axis=0), dtype=np.float64)
