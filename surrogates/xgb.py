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

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ..errors import ModelError
from .checks import Scaling, checked_data, checked_rows, target_scaling
from .error_variance import TYPICAL_MISFIT, fit_variance, gamma_test
from .models import Design, IntArray, ModelState, group_folds
from .prediction import FloatArray, Prediction
from .random_features import MaternPrior
from .threads import single_thread

MAX_SPREAD_FACTOR = 3.0
"""Largest factor on the member variance: it is fitted to rows that members have seen, where
they disagree less than elsewhere, so a larger one would make intervals too wide."""


@dataclass(frozen=True)
class _Output:
    """One output's ensemble; variances in standardised units.

    ``column`` is the output among those of the boosters, which several outputs may share;
    ``spread_factor`` is a, ``misfit`` + ``noise`` is b, ``known`` the typical known noise, and
    ``length_scale`` that of the misfit in standardised inputs.
    """

    boosters: tuple[Any, ...]
    column: int
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
        design: its monotone signs constrain the trees.
        shared_trees: trees with a leaf vector for all outputs, several times quicker than trees for
            each; outputs then learn from each other.  Where a value is missing, or with monotone
            signs, every output has trees of its own.
    """

    kind = "xgb"

    def __init__(
        self, names: tuple[str, ...] = ("y",), units: tuple[str, ...] = ("",), *, seed: int = 0,
        n_members: int = 10, n_rounds: int = 200, max_depth: int = 4, learning_rate: float = 0.1,
        design: Design | None = None, shared_trees: bool = False,
    ) -> None:  # fmt: skip
        self.names, self.units, self.seed = names, units, seed
        self.n_members, self.n_rounds = n_members, n_rounds
        self.max_depth, self.learning_rate = max_depth, learning_rate
        self.monotone = design.monotone if design is not None else ()
        self.shared_trees = shared_trees
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
        if self.monotone and len(self.monotone) != x.shape[1]:
            raise ModelError(
                f"{list(self.names)}: {len(self.monotone)} monotone signs for {x.shape[1]} features"
            )
        if groups is None:
            groups = np.unique(x, axis=0, return_inverse=True)[1].reshape(-1)
        shared = self.shared_trees and y.shape[1] > 1 and not self.monotone and bool(np.isfinite(y).all())
        with single_thread():
            self._scaling = Scaling.of_inputs(x)
            outputs: list[_Output] = []
            columns = range(y.shape[1])
            for block in [list(columns)] if shared else [[column] for column in columns]:
                rows = np.isfinite(y[:, block]).all(axis=1)
                measured, known = y[rows][:, block], noise[rows][:, block]
                outputs += self._fit_block(x[rows], measured, known, groups[rows])
            self._outputs = tuple(outputs)
        return self

    def _fit_block(self, x: FloatArray, y: FloatArray, noise: FloatArray, groups: IntArray) -> list[_Output]:
        """Outputs (n, q) that share their trees."""
        assert self._scaling is not None
        scalings = [target_scaling(*pair) for pair in zip(y.T, noise.T, strict=True)]
        means, scales = (np.array([scaling[i] for scaling in scalings]) for i in (0, 1))
        target, known = (y - means) / scales, noise / scales**2
        typical = np.median(known, axis=0)
        n_members = min(self.n_members, len(np.unique(groups)))
        varies = [scaling[2] for scaling in scalings]
        weights = _row_weights(known)
        if not any(varies) or n_members < 2:
            # Nothing can be held out: the prediction is the mean, and as uncertain as the scale says.
            alone = (self._boost(x, target, weights),)
            return [
                _Output(alone, i, mean, scale, 0.0, 1.0, 1e-3, float(typical[i]), 1.0)
                for i, (mean, scale, _) in enumerate(scalings)
            ]
        folds = group_folds(groups, n_members, np.random.default_rng(self.seed))
        boosters = tuple(
            self._boost(x[folds != k], target[folds != k], weights[folds != k]) for k in range(n_members)
        )
        members, scaled = _member_values(boosters, x), self._scaling(x)
        return [
            _calibrated(
                _Output(boosters, i, mean, scale, 0.0, 1.0, 1e-3, float(typical[i]), 1.0),
                members[:, :, i], target[:, i], known[:, i], folds, scaled,
            )
            for i, (mean, scale, _) in enumerate(scalings)
        ]  # fmt: skip

    def _boost(self, x: FloatArray, target: FloatArray, weights: FloatArray) -> Any:
        import xgboost

        parameters = {
            "objective": "reg:squarederror", "eta": self.learning_rate, "max_depth": self.max_depth,
            "min_child_weight": 1, "lambda": 1.0, "subsample": 0.8, "colsample_bytree": 0.8, "base_score": 0.0,
            "tree_method": "hist", "nthread": 1, "seed": self.seed % 2**31, "verbosity": 0,
        }  # fmt: skip
        if self.monotone:
            parameters["monotone_constraints"] = tuple(self.monotone)
        if target.shape[1] > 1:
            parameters["multi_strategy"] = "multi_output_tree"
        matrix = xgboost.DMatrix(x, label=target, weight=weights, nthread=1)
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
            for column, (output, members) in enumerate(_by_output(self._outputs, x)):
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
                output.y_mean + output.y_scale * members.mean(axis=0)
                for output, members in _by_output(self._outputs, x)
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
        ensembles = list({id(output.boosters): output.boosters for output in self._outputs}.values())
        for i, ensemble in enumerate(ensembles):
            boosters |= {f"{i}-{k:02d}": bytes(booster.save_raw("ubj")) for k, booster in enumerate(ensemble)}
        for i, output in enumerate(self._outputs):
            arrays[f"{i}.scalars"] = np.array(
                [
                    output.y_mean, output.y_scale, output.spread_factor, output.misfit, output.noise,
                    output.known, output.length_scale,
                ]
            )  # fmt: skip
        values = {
            "kind": self.kind, "names": list(self.names), "units": list(self.units), "seed": self.seed,
            "shared_trees": len(ensembles) < len(self._outputs),
        }  # fmt: skip
        return ModelState(values, arrays, boosters)

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        """The inverse of :meth:`state`.

        Raises:
            KeyError, ValueError, TypeError: the state is not one (the persistence layer says which file).
        """
        names, units, seed = state.values["names"], state.values["units"], state.values["seed"]
        if not isinstance(names, list) or not isinstance(units, list) or not isinstance(seed, int):
            raise TypeError("'names' and 'units' must be lists, 'seed' an integer")
        model = cls(tuple(names), tuple(units), seed=seed)
        model._scaling = Scaling(state.arrays["input_mean"], state.arrays["input_scale"])
        model.shared_trees = shared = state.values["shared_trees"] is True
        ensembles = [_loaded(state, i) for i in range(1 if shared else len(names))]
        model._outputs = tuple(
            _Output(
                ensembles[0 if shared else i], i if shared else 0,
                *(float(v) for v in state.arrays[f"{i}.scalars"]),
            )
            for i in range(len(names))
        )  # fmt: skip
        return model


def _loaded(state: ModelState, ensemble: int) -> tuple[Any, ...]:
    import xgboost

    boosters = []
    for name in sorted(name for name in state.boosters if name.startswith(f"{ensemble}-")):
        booster = xgboost.Booster({"nthread": 1})
        try:
            booster.load_model(bytearray(state.boosters[name]))
        except xgboost.core.XGBoostError as error:
            raise ValueError(f"booster {name} is not a UBJSON model") from error
        boosters.append(booster)
    if not boosters:
        raise ValueError(f"the state has no boosters of ensemble {ensemble}")
    return tuple(boosters)


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
            for column, (output, members) in enumerate(_by_output(self._outputs, x)):
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
    """Predictions (K, n, q) of all members and the outputs that they share, in standardised units."""
    return np.stack(
        [np.asarray(b.inplace_predict(x), dtype=np.float64).reshape(len(x), -1) for b in boosters]
    )


def _by_output(outputs: tuple[_Output, ...], x: FloatArray) -> Iterator[tuple[_Output, FloatArray]]:
    """Outputs with their members' predictions (K, n); what outputs share is predicted once."""
    predicted: dict[int, FloatArray] = {}
    for output in outputs:
        key = id(output.boosters)
        if key not in predicted:
            predicted[key] = _member_values(output.boosters, x)
        yield output, predicted[key][:, :, output.column]


def _row_weights(known: FloatArray) -> FloatArray:
    """Weights (n,) of rows whose outputs (n, q) have known noise variances: what is sure counts more."""
    weights = 1.0 / (TYPICAL_MISFIT + known.mean(axis=1))
    return np.asarray(weights / weights.mean())


def _calibrated(
    output: _Output,
    members: FloatArray,
    target: FloatArray,
    known: FloatArray,
    folds: IntArray,
    x: FloatArray,
) -> _Output:
    """An output with its uncertainty, from what every member says of the rows that it has not seen.

    Args:
        members: (K, n) predictions for the training rows; target, known, folds: (n,).
        x: (n, d) standardised inputs.
    """
    held_out = (folds, np.arange(len(target)))
    residual = target - members[held_out]
    # The member that has not seen a row differs from the others by the row's own error;
    # only the others show how members disagree.
    seen = np.ones_like(members, dtype=bool)
    seen[held_out] = False
    spread = members.var(axis=0, where=seen)
    factor, variance = fit_variance(residual, spread, known, MAX_SPREAD_FACTOR)
    noise, length_scale = gamma_test(x, residual, known)
    unexplained = min(variance, max(0.0, noise))
    return replace(
        output,
        spread_factor=factor,
        misfit=variance - unexplained,
        noise=unexplained,
        length_scale=length_scale,
    )
