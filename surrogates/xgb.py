"""An ensemble of XGBoost models, one per fold, with an uncertainty that out-of-fold errors calibrate.

The spread of boosted trees alone covers 40-63 % at nominal 90 %.  What is predicted here:

* mean: the average of the K members, each trained without one fold;
* var_epistemic: member variance x a + misfit, where the misfit is the part of the
  out-of-fold error that neighbours share, and so belongs to the function;
* var_noise: the part that they do not share, plus the typical known noise.

The factor a and the out-of-fold variance b maximise the normal likelihood of the
out-of-fold errors; b is split by the Gamma test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.spatial import cKDTree

from ..errors import ModelError
from .checks import Scaling, checked_data, checked_rows, target_scaling
from .models import IntArray, ModelState, group_folds
from .prediction import FloatArray, Prediction
from .random_features import MaternPrior
from .threads import single_thread

MAX_SPREAD_FACTOR = 3.0
"""Largest factor on the member variance: it is fitted to rows that members have seen, where
they disagree less than elsewhere, so a larger one would make intervals too wide."""


@dataclass(frozen=True)
class _Output:
    """One output's ensemble; variances in standardised units.

    ``spread_factor`` is a, ``misfit`` + ``noise`` is b, ``known`` the typical known noise, and
    ``length_scale`` that of the misfit in standardised inputs.
    """

    boosters: tuple[Any, ...]
    y_mean: float
    y_scale: float
    spread_factor: float
    misfit: float
    noise: float
    known: float
    length_scale: float


class KFoldXGBoost:
    """K-fold ensemble of boosted trees; a :class:`hadas.surrogates.prediction.Predictor`.

    Args:
        names, units: of the m outputs.
        seed: of folds and boosters.
        n_members: K; fewer where there are fewer groups.
        n_rounds, max_depth, learning_rate: of every booster.
    """

    kind = "xgb"

    def __init__(
        self, names: tuple[str, ...] = ("y",), units: tuple[str, ...] = ("",), *, seed: int = 0,
        n_members: int = 10, n_rounds: int = 200, max_depth: int = 4, learning_rate: float = 0.1,
    ) -> None:  # fmt: skip
        self.names, self.units, self.seed = names, units, seed
        self.n_members, self.n_rounds = n_members, n_rounds
        self.max_depth, self.learning_rate = max_depth, learning_rate
        self._scaling: Scaling | None = None
        self._outputs: tuple[_Output, ...] = ()

    def fit(
        self, x: FloatArray, y: FloatArray, noise_variance: FloatArray | None = None,
        *, groups: IntArray | None = None,
    ) -> Self:  # fmt: skip
        """Fit to ``x`` (n, d), ``y`` (n, m); NaN in ``y`` = not measured.

        Args:
            noise_variance: (n, m) known variance of each value.
            groups: (n,) rows of one group share a fold, so that errors are those on unseen
                groups; by default equal rows are a group.

        Raises:
            ModelError: bad shapes or values, or an output without data.
        """
        x, y, noise = checked_data(x, y, noise_variance, self.names)
        if groups is None:
            groups = np.unique(x, axis=0, return_inverse=True)[1].reshape(-1)
        with single_thread():
            self._scaling = Scaling.of_inputs(x)
            outputs = []
            for column in range(y.shape[1]):
                rows = np.flatnonzero(np.isfinite(y[:, column]))
                outputs.append(self._fit_output(x[rows], y[rows, column], noise[rows, column], groups[rows]))
            self._outputs = tuple(outputs)
        return self

    def _fit_output(self, x: FloatArray, y: FloatArray, noise: FloatArray, groups: IntArray) -> _Output:
        assert self._scaling is not None
        y_mean, y_scale, varies = target_scaling(y)
        target, known = (y - y_mean) / y_scale, noise / y_scale**2
        typical = float(np.median(known))
        n_members = min(self.n_members, len(np.unique(groups)))
        if not varies or n_members < 2:
            # Nothing can be held out: the prediction is the mean, and as uncertain as the scale says.
            return _Output((self._boost(x, target),), y_mean, y_scale, 0.0, 1.0, 1e-3, typical, 1.0)
        folds = group_folds(groups, n_members, np.random.default_rng(self.seed))
        boosters = tuple(self._boost(x[folds != k], target[folds != k]) for k in range(n_members))
        members = _member_values(boosters, x)
        held_out = (folds, np.arange(len(target)))
        residual = target - members[held_out]
        # The member that has not seen a row differs from the others by the row's own error;
        # only the others show how members disagree.
        seen = np.ones_like(members, dtype=bool)
        seen[held_out] = False
        spread = members.var(axis=0, where=seen)
        factor, variance = fit_variance(residual, spread, known, MAX_SPREAD_FACTOR)
        scaled = self._scaling(x)
        noise_share, length_scale = gamma_test(scaled, residual)
        unexplained = min(variance, max(0.0, noise_share - typical))
        return _Output(
            boosters, y_mean, y_scale, factor, variance - unexplained, unexplained, typical, length_scale
        )

    def _boost(self, x: FloatArray, target: FloatArray) -> Any:
        import xgboost

        parameters = {
            "objective": "reg:squarederror", "eta": self.learning_rate, "max_depth": self.max_depth,
            "min_child_weight": 1, "lambda": 1.0, "subsample": 0.8, "colsample_bytree": 0.8, "base_score": 0.0,
            "tree_method": "hist", "nthread": 1, "seed": self.seed % 2**31, "verbosity": 0,
        }  # fmt: skip
        matrix = xgboost.DMatrix(x, label=target, nthread=1)
        return xgboost.train(parameters, matrix, num_boost_round=self.n_rounds)

    def _checked(self, x: FloatArray) -> tuple[FloatArray, Scaling]:
        if self._scaling is None:
            raise ModelError("the ensemble has not been fitted; call fit first")
        return checked_rows(x, len(self._scaling.mean)), self._scaling

    def predict(self, x: FloatArray) -> Prediction:
        """Ensemble prediction at rows ``x`` (n, d): means and variances (n, m)."""
        x, _ = self._checked(x)
        shape = (len(x), len(self._outputs))
        mean, variance, noise = np.empty(shape), np.empty(shape), np.empty(shape)
        with single_thread():
            for column, output in enumerate(self._outputs):
                members = _member_values(output.boosters, x)
                scale = output.y_scale**2
                mean[:, column] = output.y_mean + output.y_scale * members.mean(axis=0)
                variance[:, column] = scale * (output.spread_factor * members.var(axis=0) + output.misfit)
                noise[:, column] = scale * (output.noise + output.known)
        return Prediction(mean, variance, noise, self.names, self.units)

    def mean(self, x: FloatArray) -> FloatArray:
        """Ensemble means (n, m)."""
        x, _ = self._checked(x)
        with single_thread():
            columns = [
                o.y_mean + o.y_scale * _member_values(o.boosters, x).mean(axis=0) for o in self._outputs
            ]
        return np.stack(columns, axis=1)

    def paths(self, n_draws: int, seed: int) -> EnsemblePaths:
        """Joint draws of the noise-free functions, as functions of the row."""
        if self._scaling is None:
            raise ModelError("the ensemble has not been fitted; call fit first")
        return EnsemblePaths(self._outputs, self._scaling, n_draws, seed)

    def state(self) -> ModelState:
        """Everything needed to predict, bit for bit."""
        if self._scaling is None:
            raise ModelError("the ensemble has not been fitted; call fit first")
        arrays = {"input_mean": self._scaling.mean, "input_scale": self._scaling.scale}
        boosters: dict[str, bytes] = {}
        for i, output in enumerate(self._outputs):
            arrays[f"{i}.scalars"] = np.array(
                [
                    output.y_mean, output.y_scale, output.spread_factor, output.misfit, output.noise,
                    output.known, output.length_scale,
                ]
            )  # fmt: skip
            for k, booster in enumerate(output.boosters):
                boosters[f"{i}-{k:02d}"] = bytes(booster.save_raw("ubj"))
        values = {"kind": self.kind, "names": list(self.names), "units": list(self.units), "seed": self.seed}
        return ModelState(values, arrays, boosters)

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        """The inverse of :meth:`state`.

        Raises:
            KeyError, ValueError, TypeError: the state is not one (the persistence layer says which file).
        """
        import xgboost

        names, units, seed = state.values["names"], state.values["units"], state.values["seed"]
        if not isinstance(names, list) or not isinstance(units, list) or not isinstance(seed, int):
            raise TypeError("'names' and 'units' must be lists, 'seed' an integer")
        model = cls(tuple(names), tuple(units), seed=seed)
        model._scaling = Scaling(state.arrays["input_mean"], state.arrays["input_scale"])
        outputs = []
        for i in range(len(names)):
            boosters = []
            for name in sorted(name for name in state.boosters if name.startswith(f"{i}-")):
                booster = xgboost.Booster({"nthread": 1})
                try:
                    booster.load_model(bytearray(state.boosters[name]))
                except xgboost.core.XGBoostError as error:
                    raise ValueError(f"booster {name} is not a UBJSON model") from error
                boosters.append(booster)
            outputs.append(_Output(tuple(boosters), *(float(v) for v in state.arrays[f"{i}.scalars"])))
        model._outputs = tuple(outputs)
        return model


class EnsemblePaths:
    """Draws from the ensemble: one member each, plus a smooth path for the misfit.

    A draw is mean + sqrt(a) (member - mean) + misfit path; the path is a Matern-5/2 process
    in standardised inputs.  Its moments are those of ``predict``.
    """

    N_FEATURES = 512
    CHUNK_ROWS = 1024

    def __init__(self, outputs: tuple[_Output, ...], scaling: Scaling, n_draws: int, seed: int) -> None:
        self._outputs, self._scaling, self.n_draws = outputs, scaling, n_draws
        self._choices: list[IntArray] = []
        self._priors: list[MaternPrior] = []
        for column, output in enumerate(outputs):
            rng = np.random.default_rng([seed, column])
            # Members in turn, shuffled: every member is drawn as often as any other.
            turns = np.arange(n_draws, dtype=np.int64) % len(output.boosters)
            self._choices.append(rng.permuted(turns))
            self._priors.append(MaternPrior(self.N_FEATURES, len(scaling.mean), n_draws, rng))

    def __call__(self, x: FloatArray) -> FloatArray:
        """Evaluate every draw at rows ``x`` (n, d); returns (s, n, m)."""
        x = checked_rows(x, len(self._scaling.mean))
        scaled = self._scaling(x)
        values = np.empty((self.n_draws, len(x), len(self._outputs)))
        with single_thread():
            for column, output in enumerate(self._outputs):
                members = _member_values(output.boosters, x)
                mean = members.mean(axis=0)
                deviation = np.sqrt(output.spread_factor) * (members - mean)
                draw = mean + deviation[self._choices[column]]
                for start in range(0, len(x), self.CHUNK_ROWS):
                    rows = slice(start, start + self.CHUNK_ROWS)
                    path = self._priors[column](scaled[rows] / output.length_scale)
                    draw[:, rows] += np.sqrt(output.misfit) * path.T
                values[:, :, column] = output.y_mean + output.y_scale * draw
        return values


def _member_values(boosters: tuple[Any, ...], x: FloatArray) -> FloatArray:
    """Predictions (K, n) of all members, in standardised units."""
    return np.stack([np.asarray(b.inplace_predict(x), dtype=np.float64).reshape(-1) for b in boosters])


def fit_variance(
    residual: FloatArray, spread: FloatArray, known: FloatArray, max_factor: float
) -> tuple[float, float]:
    """Factor a on the member variance and added variance b by maximum likelihood.

    Args:
        residual, spread, known: (n,) out-of-fold error, member variance, known noise variance.

    Returns:
        (a, b) maximising the likelihood of residual ~ Normal(0, a spread + b + known), with a
        on a grid of 0..max_factor and b at least 1e-6.
    """

    def loss(log_b: float, factor: float) -> float:
        variance = factor * spread + np.exp(log_b) + known
        return float(np.sum(np.log(variance) + residual**2 / variance))

    best: tuple[float, float, float] | None = None
    for factor in np.linspace(0.0, max_factor, 7):
        found = minimize_scalar(loss, bounds=(np.log(1e-6), np.log(10.0)), args=(factor,), method="bounded")
        if best is None or found.fun < best[0]:
            best = (float(found.fun), float(factor), float(np.exp(found.x)))
    assert best is not None
    return best[1], best[2]


def gamma_test(x: FloatArray, residual: FloatArray) -> tuple[float, float]:
    """Noise variance of a smooth function's values, and a length scale for it, from near neighbours.

    Half the mean squared difference of values between nearest neighbours (Stefansson, Koncar
    & Jones 1997, the first-neighbour form); the length scale is twice the median distance
    between neighbours that differ.

    Args:
        x: (n, d) standardised inputs, n >= 2; residual: (n,).
    """
    distance, neighbour = cKDTree(x).query(x, k=2)
    # With repeats, either of the two may be the row itself.
    rows = np.arange(len(x))
    other = np.where(neighbour[:, 1] == rows, neighbour[:, 0], neighbour[:, 1])
    noise = 0.5 * float(np.mean((residual - residual[other]) ** 2))
    apart = distance[:, 1][distance[:, 1] > 1e-9]
    return noise, 2.0 * float(np.median(apart)) if len(apart) else 1.0
