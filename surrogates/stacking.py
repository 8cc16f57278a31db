"""Models that see rows in different ways, averaged by what each is worth on rows held out.

The core of every cost model of whole networks: members are compared on rows that they have not seen (stacking,
Breiman 1996), the weighted mixture of their distributions is the prediction, and the same held-out errors say how
much wider than it claims the mixture has to be.  Draws are widened as predictions are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.stats import norm

from .average import MixturePaths, stacking_weights
from .models import IntArray, Model, ModelState, group_folds, model_from_state
from .prediction import FloatArray, Prediction

LEVEL = 0.9
"""Level of the intervals that widening makes hold on rows held out; others follow as of a normal."""


@dataclass(frozen=True)
class HoldOut:
    """How members are compared.

    Attributes:
        n_folds: of groups of rows that are held out together.
        least_groups: with fewer nothing is held out: members count alike, and intervals are the models' own.
        narrowest, widest: limits of the factor on standard deviations.
        exchangeable: whether a row to come is like any other row, so that split conformal prediction says which
            rank of the held-out errors holds for it; not where rows of one group err together.
    """

    n_folds: int
    least_groups: int
    narrowest: float
    widest: float
    exchangeable: bool


class Fresh(Protocol):
    """Makes a member's model to be fitted to some of the training rows."""

    def __call__(self, member: str, some: IntArray, *, quick: bool) -> Model: ...


@dataclass(frozen=True)
class Training:
    """n training rows.

    Attributes:
        x: (n, d); y: (n,) log values; noise: (n,) known variances of these.
        groups: (n,) rows of one group are one network to models that ask; ``None`` if rows are all alike.
        fresh: makes the members.
    """

    x: FloatArray
    y: FloatArray
    noise: FloatArray
    groups: IntArray | None
    fresh: Fresh

    def fit(self, member: str, rows: IntArray | None = None, *, quick: bool = False) -> Model:
        """A member fitted to some rows, by default to all."""
        rows = np.arange(len(self.y)) if rows is None else rows
        groups = None if self.groups is None else self.groups[rows]
        model = self.fresh(member, rows, quick=quick)
        return model.fit(self.x[rows], self.y[rows, None], self.noise[rows, None], groups=groups)


def compare(
    data: Training, members: Sequence[str], held: IntArray, how: HoldOut, seed: int
) -> tuple[dict[str, float], float]:
    """Weights of the members, and the factor by which standard deviations have to be wider, on groups held out.

    Args:
        held: (n,) group that each row is held out with.
    """
    n_rows, n_groups = len(data.y), len(np.unique(held))
    if n_groups < how.least_groups:
        return dict.fromkeys(members, 1.0 / len(members)), 1.0
    folds = group_folds(held, how.n_folds, np.random.default_rng(seed))
    parts = {name: np.empty((n_rows, len(members))) for name in ("mean", "var_epistemic", "var_noise")}
    for fold in range(how.n_folds):
        test = np.flatnonzero(folds == fold)
        for column, member in enumerate(members):
            found = data.fit(member, np.flatnonzero(folds != fold), quick=True).predict(data.x[test])
            for name, part in parts.items():
                part[test, column] = getattr(found, name)[:, 0]
    weight = stacking_weights(parts["mean"] - data.y[:, None], data.noise)
    columns = [
        Prediction(
            parts["mean"][:, [k]], parts["var_epistemic"][:, [k]], parts["var_noise"][:, [k]], ("y",), ("log",)
        )
        for k in range(len(members))
    ]  # fmt: skip
    mixed = mixture(columns, list(weight))
    z = np.abs(mixed.mean[:, 0] - data.y) / mixed.sd_total[:, 0]
    level = min(1.0, LEVEL * (n_rows + 1) / n_rows) if how.exchangeable else LEVEL
    factor = float(np.quantile(z, level)) / float(norm.ppf(0.5 + LEVEL / 2))
    factor = float(np.clip(float(f"{factor:.4g}"), how.narrowest, how.widest))
    return {name: float(w) for name, w in zip(members, weight, strict=True)}, factor


@dataclass(frozen=True)
class Stack:
    """Fitted members and what each is worth; inputs are (n, d), the output one logarithm.

    Attributes:
        members: by name, in the order of ``weights``.
        weights: they add up to one.
    """

    members: Mapping[str, Model]
    weights: Mapping[str, float]

    @classmethod
    def fit(cls, data: Training, weights: Mapping[str, float]) -> Stack:
        """Members that are worth something, fitted to all rows."""
        kept = {name: weight for name, weight in weights.items() if weight > 0}
        return cls({name: data.fit(name) for name in kept}, kept)

    def predict(self, x: FloatArray) -> Prediction:
        """Moments (n, 1) of the mixture."""
        return mixture([model.predict(x) for model in self.members.values()], list(self.weights.values()))

    def mean(self, x: FloatArray) -> FloatArray:
        """(n, 1) means of the mixture."""
        means = np.stack([model.mean(x) for model in self.members.values()])
        return np.asarray(np.einsum("k,knm->nm", np.array(list(self.weights.values())), means))


def mixture(found: Sequence[Prediction], weights: Sequence[float]) -> Prediction:
    """Moments of the weighted mixture; members that disagree widen it."""
    share = np.array(weights)
    means = np.stack([member.mean for member in found])
    mean = np.einsum("k,knm->nm", share, means)
    within = np.einsum("k,knm->nm", share, np.stack([member.var_epistemic for member in found]))
    between = np.einsum("k,knm->nm", share, (means - mean) ** 2)
    noise = np.einsum("k,knm->nm", share, np.stack([member.var_noise for member in found]))
    return Prediction(mean, within + between, noise, found[0].names, found[0].units)


def widened(found: Prediction, factor: FloatArray | float) -> Prediction:
    """A prediction whose standard deviations are wider by a factor, (n, 1) or one for all."""
    square = np.asarray(factor) ** 2
    return Prediction(
        found.mean, square * found.var_epistemic, square * found.var_noise, found.names, found.units
    )


class WidenedPaths:
    """Draws of a stack, each as much further from the mean as predictions are wider."""

    def __init__(self, stack: Stack, n_draws: int, seed: int) -> None:
        self._stack = stack
        weights = np.array(list(stack.weights.values()))
        self._draws = MixturePaths(tuple(stack.members.values()), weights, n_draws, seed)

    def __call__(self, x: FloatArray, factor: FloatArray | float) -> FloatArray:
        """(s, n, 1) values at ``x`` (n, d), further from their mean by a factor, (n, 1) or one for all."""
        mean = self._stack.mean(x)
        return np.asarray(mean + factor * (self._draws(x) - mean))


def interval(found: Prediction, level: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Medians (n,) and both ends (n,) of central intervals for a new measurement, of exp of the first output."""
    mean, sd = found.mean[:, 0], found.sd_total[:, 0]
    half = float(norm.ppf(0.5 + level / 2)) * sd
    return np.exp(mean), np.exp(mean - half), np.exp(mean + half)


def nested_states(values: Mapping[str, object], states: Mapping[str, ModelState]) -> ModelState:
    """One state that holds several, by name, beside ``values``."""
    arrays: dict[str, FloatArray] = {}
    boosters: dict[str, bytes] = {}
    for i, state in enumerate(states.values()):
        arrays |= {f"member{i}.{key}": array for key, array in state.arrays.items()}
        boosters |= {f"member{i}.{key}": data for key, data in state.boosters.items()}
    members = [{"name": name, "values": dict(state.values)} for name, state in states.items()]
    return ModelState({**values, "members": members}, arrays, boosters)


def states_in(state: ModelState) -> dict[str, ModelState]:
    """The inverse of :func:`nested_states`.

    Raises:
        KeyError, TypeError: the state is damaged.
    """
    members: Any = state.values["members"]
    found = {}
    for i, member in enumerate(members):
        prefix = f"member{i}."
        arrays = {k.removeprefix(prefix): a for k, a in state.arrays.items() if k.startswith(prefix)}
        boosters = {k.removeprefix(prefix): b for k, b in state.boosters.items() if k.startswith(prefix)}
        found[str(member["name"])] = ModelState(member["values"], arrays, boosters)
    return found


def stack_from_states(states: Mapping[str, ModelState], weights: Mapping[str, Any]) -> Stack:
    """A stack of saved members.

    Raises:
        ModelError, KeyError, ValueError, TypeError: a state is damaged.
    """
    members = {name: model_from_state(inner) for name, inner in states.items()}
    return Stack(members, {name: float(weights[name]) for name in members})
