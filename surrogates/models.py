"""The regressors a quantity can choose from, behind one interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from .prediction import FloatArray, Paths, Prediction

IntArray = NDArray[np.int64]
KernelKind = Literal["matern", "categorical", "linear"]


@dataclass(frozen=True)
class KernelPart:
    """A function of its own of some feature columns; the parts of a design add up.

    Attributes:
        columns: indices of the features it sees.
        kernel: ``matern`` (smooth, one length scale per column), ``categorical`` (equal or not,
            whatever the numbers) or ``linear``.
    """

    columns: tuple[int, ...]
    kernel: KernelKind = "matern"


@dataclass(frozen=True)
class Design:
    """What is known of the d feature columns before a row is seen; every model takes of it what it can use.

    Attributes:
        parts: functions that add up; empty = one smooth function of all columns.
        monotone: (d,) of -1, 0, 1: where physics is certain that the target falls or rises with a
            feature; empty = nowhere.
        terms: columns of quantities that are never negative and whose non-negative combination is
            the physical part of exp(target): a roofline's times.  Models of kind ``trend+...`` fit it and
            leave its residual, on the target's log scale, to the other columns; all others pass these by.
        term_resources: index of the resource that each of ``terms`` occupies (a clock domain, say): terms of
            one resource add up, resources overlap (see ``roofline``); empty = all terms add up.
    """

    parts: tuple[KernelPart, ...] = ()
    monotone: tuple[int, ...] = ()
    terms: tuple[int, ...] = ()
    term_resources: tuple[int, ...] = ()


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


KINDS = ("gp", "xgb", "ridge", "average")
"""Kinds of model; ``trend+`` before one of the first three fits the design's physical terms first."""


def make_model(
    kind: str, name: str, unit: str, *, seed: int, quick: bool = False, design: Design | None = None
) -> Model:
    """A fresh single-output model.

    Args:
        kind: one of :data:`KINDS`, or ``trend+`` and one of them: the design's physical terms first.
        design: what is known of the feature columns.
        quick: the cheaper form that cross-validation compares.

    Raises:
        ModelError: an unknown kind.
    """
    if kind == "gp":
        from .gp import GaussianProcess

        if quick:
            return GaussianProcess(
                (name,), (unit,), seed=seed, fit_rows=150, max_iterations=25, design=design
            )
        return GaussianProcess((name,), (unit,), seed=seed, design=design)
    if kind == "xgb":
        from .xgb import KFoldXGBoost

        if quick:
            return KFoldXGBoost(
                (name,), (unit,), seed=seed, n_members=3, n_rounds=100, learning_rate=0.2, design=design
            )
        return KFoldXGBoost((name,), (unit,), seed=seed, design=design)
    if kind.startswith("trend+"):
        from .trend import TrendedModel

        return TrendedModel(kind, name, unit, seed=seed, quick=quick, design=design)
    if kind == "ridge":
        from .ridge import BayesianRidge

        return BayesianRidge((name,), (unit,), seed=seed, design=design)
    if kind == "average":
        from .average import Average

        return Average(name, unit, seed=seed, quick=quick, design=design)
    raise ModelError(f"no predictor '{kind}'; known: {list(KINDS)}, and 'trend+gp' and the like")


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
    if kind == "ridge":
        from .ridge import BayesianRidge

        return BayesianRidge.from_state(state)
    if isinstance(kind, str) and kind.startswith("trend+"):
        from .trend import TrendedModel

        return TrendedModel.from_state(state)
    if kind == "average":
        from .average import Average

        return Average.from_state(state)
    if kind == "gp-sum":
        from .sum_process import SumProcess

        return SumProcess.from_state(state)
    raise ModelError(f"no predictor '{kind}'; known: {list(KINDS)}")


def group_folds(groups: IntArray, n_folds: int, rng: np.random.Generator) -> IntArray:
    """Fold (n,) of each row; a group's rows share a fold, folds hold about as many groups each."""
    unique, inverse = np.unique(groups, return_inverse=True)
    fold_of_group = rng.permutation(len(unique)) % n_folds
    return np.asarray(fold_of_group[inverse], dtype=np.int64)
