"""The regressors a quantity can choose from, behind one interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from .prediction import FloatArray, Paths, Prediction

IntArray = NDArray[np.int64]
Components = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ModelState:
    """A fitted model as plain data: no code, so that loading runs none.

    Attributes:
        values: for JSON; ``values["kind"]`` names the model.
        arrays: for safetensors.
        boosters: XGBoost models in UBJSON, by name.
    """

    values: Mapping[str, object]
    arrays: Mapping[str, FloatArray]
    boosters: Mapping[str, bytes] = field(default_factory=dict)


class Model(Protocol):
    """A :class:`~hadas.surrogates.prediction.Predictor` that can be selected, saved and asked for means alone."""

    kind: str

    def fit(
        self, x: FloatArray, y: FloatArray, noise_variance: FloatArray | None = None,
        *, groups: IntArray | None = None,
    ) -> Self: ...  # fmt: skip
    def predict(self, x: FloatArray) -> Prediction: ...
    def mean(self, x: FloatArray) -> FloatArray: ...
    def paths(self, n_draws: int, seed: int) -> Paths: ...
    def state(self) -> ModelState: ...


KINDS = ("gp", "xgb")


def make_model(
    kind: str, name: str, unit: str, *, seed: int, quick: bool = False, components: Components = ()
) -> Model:
    """A fresh single-output model.

    Args:
        kind: one of :data:`KINDS`.
        components: groups of feature columns for the models that add functions of groups.
        quick: the cheaper form that cross-validation compares.

    Raises:
        ModelError: an unknown kind.
    """
    if kind == "gp":
        from .gp import GaussianProcess

        if quick:
            return GaussianProcess(
                (name,), (unit,), seed=seed, fit_rows=150, max_iterations=25, components=components
            )
        return GaussianProcess((name,), (unit,), seed=seed, components=components)
    if kind == "xgb":
        from .xgb import KFoldXGBoost

        if quick:
            return KFoldXGBoost((name,), (unit,), seed=seed, n_members=3, n_rounds=100, learning_rate=0.2)
        return KFoldXGBoost((name,), (unit,), seed=seed)
    raise ModelError(f"no predictor '{kind}'; known: {list(KINDS)}")


def model_from_state(state: ModelState) -> Model:
    """Rebuild a model from its state.

    Raises:
        ModelError: an unknown kind.
        KeyError, ValueError, TypeError: a state with missing or wrong parts.
    """
    kind = state.values.get("kind")
    if kind == "gp":
        from .gp import GaussianProcess

        return GaussianProcess.from_state(state)
    if kind == "xgb":
        from .xgb import KFoldXGBoost

        return KFoldXGBoost.from_state(state)
    raise ModelError(f"no predictor '{kind}'; known: {list(KINDS)}")


def group_folds(groups: IntArray, n_folds: int, rng: np.random.Generator) -> IntArray:
    """Fold (n,) of each row; a group's rows share a fold, folds hold about as many groups each."""
    unique, inverse = np.unique(groups, return_inverse=True)
    fold_of_group = rng.permutation(len(unique)) % n_folds
    return np.asarray(fold_of_group[inverse], dtype=np.int64)
