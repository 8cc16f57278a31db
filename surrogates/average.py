"""An average of models that err in different ways, weighted by what they are worth on rows held out.

Predictive distribution: the mixture of the members'.  Its mean is the weighted mean; its variance
is the weighted variance within members plus the variance between their means, so that members
who disagree say so.  A draw is a draw from one member.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self, TypeVar

import numpy as np
from scipy.optimize import nnls

from ..errors import ModelError
from .checks import checked_data, checked_rows
from .models import Design, IntArray, Model, ModelState, group_folds, make_model, model_from_state
from .prediction import FloatArray, Paths, Prediction

Value = TypeVar("Value")

N_FOLDS = 4
"""Of the comparison that the weights come from."""

EQUAL_ROWS = 5.0
"""Rows' worth of evidence that all members are equally good: few held-out rows say little."""

SUM_WEIGHT = 1e4
"""How strictly the weights add up to one while they are fitted."""


class Average:
    """The weighted average of several kinds of model; single-output, a :class:`hadas.surrogates.models.Model`.

    Args:
        name, unit: of the output.
        seed: of folds and members.
        quick: members are the cheaper forms that cross-validation compares.
        design: handed to all members.
        members: their kinds; by default a Gaussian process, on a physical trend where the design
            names one, and boosted trees.
    """

    kind = "average"

    def __init__(
        self, name: str, unit: str, *, seed: int, quick: bool = False, design: Design | None = None,
        members: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.name, self.unit, self.seed, self.quick = name, unit, seed, quick
        self.design = design or Design()
        self.members = tuple(members) or ("trend+gp" if self.design.terms else "gp", "xgb")
        if self.kind in self.members:
            raise ModelError(f"'{name}': an average cannot be a member of itself")
        self.weights = np.full(len(self.members), 1.0 / len(self.members))
        self._models: tuple[Model, ...] = ()
        self._n_features = 0

    def fit(
        self, x: FloatArray, y: FloatArray, noise_variance: FloatArray | None = None,
        *, groups: IntArray | None = None,
    ) -> Self:  # fmt: skip
        """Fit to ``x`` (n, d), ``y`` (n, 1); NaN in ``y`` = not measured.

        Args:
            noise_variance: (n, 1) known variance of each value.
            groups: (n,) rows of one group are held out together; by default equal rows are a group.

        Raises:
            ModelError: bad shapes or values, or no measured row.
        """
        x, y, noise = checked_data(x, y, noise_variance, (self.name,))
        if groups is None:
            groups = np.unique(x, axis=0, return_inverse=True)[1].reshape(-1)
        rows = np.flatnonzero(np.isfinite(y[:, 0]))
        x, y, noise, groups = x[rows], y[rows], noise[rows], groups[rows]
        self._n_features = x.shape[1]
        self.weights = self._fitted_weights(x, y, noise, groups)
        self._models = tuple(
            self._member(kind, self.quick).fit(x, y, noise, groups=groups) for kind in self.members
        )
        return self

    def _member(self, kind: str, quick: bool) -> Model:
        return make_model(kind, self.name, self.unit, seed=self.seed, quick=quick, design=self.design)

    def _fitted_weights(
        self, x: FloatArray, y: FloatArray, noise: FloatArray, groups: IntArray
    ) -> FloatArray:
        n_groups = len(np.unique(groups))
        if n_groups < N_FOLDS:
            return np.full(len(self.members), 1.0 / len(self.members))
        folds = group_folds(groups, N_FOLDS, np.random.default_rng(self.seed))
        error = np.empty((len(y), len(self.members)))
        for fold in range(N_FOLDS):
            held, kept = folds == fold, folds != fold
            for column, kind in enumerate(self.members):
                model = self._member(kind, quick=True).fit(x[kept], y[kept], noise[kept], groups=groups[kept])
                error[held, column] = (model.mean(x[held]) - y[held])[:, 0]
        return stacking_weights(error, noise[:, 0])

    def _checked(self, x: FloatArray) -> FloatArray:
        if not self._models:
            raise ModelError("the average has not been fitted; call fit first")
        return checked_rows(x, self._n_features)

    def predict(self, x: FloatArray) -> Prediction:
        """Mean and variances (n, 1) of the mixture at rows ``x`` (n, d)."""
        x = self._checked(x)
        found = [model.predict(x) for model in self._models]
        means = np.stack([member.mean for member in found])
        mean = np.einsum("k,knm->nm", self.weights, means)
        within = np.einsum("k,knm->nm", self.weights, np.stack([member.var_epistemic for member in found]))
        between = np.einsum("k,knm->nm", self.weights, (means - mean) ** 2)
        noise = np.einsum("k,knm->nm", self.weights, np.stack([member.var_noise for member in found]))
        return Prediction(mean, within + between, noise, (self.name,), (self.unit,))

    def mean(self, x: FloatArray) -> FloatArray:
        """Means (n, 1)."""
        x = self._checked(x)
        means = np.stack([model.mean(x) for model in self._models])
        return np.asarray(np.einsum("k,knm->nm", self.weights, means))

    def paths(self, n_draws: int, seed: int) -> MixturePaths:
        """Joint draws of the noise-free functions, as functions of the row."""
        if not self._models:
            raise ModelError("the average has not been fitted; call fit first")
        return MixturePaths(self._models, self.weights, n_draws, seed)

    def state(self) -> ModelState:
        """Everything needed to predict, bit for bit."""
        if not self._models:
            raise ModelError("the average has not been fitted; call fit first")
        arrays, boosters = {"weights": self.weights}, dict[str, bytes]()
        inner = []
        for i, model in enumerate(self._models):
            state = model.state()
            inner.append(dict(state.values))
            arrays |= {f"member{i}.{key}": array for key, array in state.arrays.items()}
            boosters |= {f"member{i}.{key}": data for key, data in state.boosters.items()}
        values = {
            "kind": self.kind, "name": self.name, "unit": self.unit, "seed": self.seed,
            "n_features": self._n_features, "members": inner,
        }  # fmt: skip
        return ModelState(values, arrays, boosters)

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        """The inverse of :meth:`state`.

        Raises:
            KeyError, ValueError, TypeError: the state is not one (the persistence layer says which file).
        """
        values, inner = state.values, state.values["members"]
        name, unit, seed, n_features = (values[key] for key in ("name", "unit", "seed", "n_features"))
        if not isinstance(name, str) or not isinstance(unit, str):
            raise TypeError("'name' and 'unit' must be texts")
        if not isinstance(seed, int) or not isinstance(n_features, int):
            raise TypeError("'seed' and 'n_features' must be integers")
        if not isinstance(inner, list) or not all(isinstance(member, Mapping) for member in inner):
            raise TypeError("'members' must be a list of states")
        kinds = [str(member["kind"]) for member in inner]
        if cls.kind in kinds:
            raise ValueError("an average cannot be a member of itself")
        model = cls(name, unit, seed=seed, members=kinds)
        model._n_features = n_features
        model.weights = state.arrays["weights"]
        if model.weights.shape != (len(inner),):
            raise ValueError(f"{len(inner)} members, but weights of shape {model.weights.shape}")
        model._models = tuple(
            model_from_state(
                ModelState(member, _under(state.arrays, f"member{i}."), _under(state.boosters, f"member{i}."))
            )
            for i, member in enumerate(inner)
        )
        return model


def _under(entries: Mapping[str, Value], prefix: str) -> dict[str, Value]:
    return {key.removeprefix(prefix): value for key, value in entries.items() if key.startswith(prefix)}


class MixturePaths:
    """Draws from the members' draws: each from one member, members as often as their weights say."""

    def __init__(self, models: tuple[Model, ...], weights: FloatArray, n_draws: int, seed: int) -> None:
        rng = np.random.default_rng([seed, len(models)])
        # Systematic sampling: counts are within one of n_draws x weight, and right on average.
        points = (rng.uniform() + np.arange(n_draws)) / n_draws
        member = np.searchsorted(np.cumsum(weights)[:-1], points, side="right")
        self.n_draws = n_draws
        self._member: IntArray = rng.permuted(member)
        self._paths: list[tuple[IntArray, Paths]] = []
        for i, model in enumerate(models):
            of_member = np.flatnonzero(self._member == i)
            if len(of_member):
                self._paths.append((of_member, model.paths(len(of_member), seed)))

    def __call__(self, x: FloatArray) -> FloatArray:
        """Evaluate every draw at rows ``x`` (n, d); returns (s, n, 1)."""
        values = np.empty((self.n_draws, len(x), 1))
        for draws, paths in self._paths:
            values[draws] = paths(x)
        return values


def stacking_weights(error: FloatArray, known: FloatArray) -> FloatArray:
    """Weights (k,) that add up to one and make the least of the mean squared error of the average.

    Breiman (1996), "Stacked regressions": weights that are not negative, fitted to held-out errors.

    Args:
        error: (n, k) held-out errors of the members; known: (n,) known noise variance of the rows.
    """
    # Rows whose own noise is far above all errors say nothing about the members.
    size = float(np.median((error**2).min(axis=1))) + 1e-300
    row_weight = 1.0 / (1.0 + known / size)
    row_weight /= row_weight.mean()
    n_members = error.shape[1]
    typical = float((row_weight[:, None] * error**2).mean()) + 1e-300
    even = np.sqrt(EQUAL_ROWS * typical)
    system = np.vstack([
        np.sqrt(row_weight)[:, None] * error, even * np.eye(n_members),
        np.full((1, n_members), SUM_WEIGHT * np.sqrt(typical * len(error))),
    ])  # fmt: skip
    wanted = np.concatenate([
        np.zeros(len(error)), np.full(n_members, even / n_members),
        [SUM_WEIGHT * np.sqrt(typical * len(error))],
    ])  # fmt: skip
    found, _ = nnls(system, wanted)
    rounded = np.array([float(f"{weight:.4g}") for weight in found])
    return np.asarray(rounded / rounded.sum())
