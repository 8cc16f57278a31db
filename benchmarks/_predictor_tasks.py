"""What a comparison of predictors is made of: tasks on real measurements, splits, contenders, figures.

A task draws training rows, hands *the same rows* to our predictor and to the plain models, and judges all of them
on all other rows.  Nothing that a model does may look at the test rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Answer:
    """What a contender says of n test rows, on the scale of the measured values.

    Attributes:
        value: (n,) predictions.
        low, high: (n,) ends of central 90 % intervals for a new measurement; ``None`` where it gives none.
    """

    value: FloatArray
    low: FloatArray | None = None
    high: FloatArray | None = None


@dataclass(frozen=True)
class Split:
    """Rows of one repetition."""

    train: IntArray
    test: IntArray


@dataclass(frozen=True)
class Bound:
    """What is to be reached: the median over seeds of a figure, at most or at least a value.

    Attributes:
        figure: ``mape`` (percent), ``tau``, ``mae`` or ``ratio_to_best_plain`` (error / best plain model's).
    """

    figure: str
    at_most: float | None = None
    at_least: float | None = None


class Contender(Protocol):
    """Fits the training rows (indices into the task's own data) and answers for the test rows."""

    def __call__(self, train: IntArray, test: IntArray, seed: int) -> Answer: ...


@dataclass(frozen=True)
class Task:
    """One line of the table.

    Attributes:
        name: of the line, for people and for JSON.
        measured: (N,) the truth, on its natural scale.
        splits: by seed, the splits of that repetition (several where each family is left out in turn: the
            figure of a seed is then the median over them).
        ours: our predictor.
        plain_columns: (N, d) logged columns as the plain models get them; ``None`` = no plain model.
        plain_log_target: whether plain models are fitted to log values (they are then judged on the values).
        bounds: what is to be reached.
        floor: what is known of the least error that can be had, by name; may be computed by a call.
        alternatives: further contenders by name, printed beside.
        judged: whether the task decides ``holds`` (an illustration does not).
        full_only: left out by ``--quick``.
    """

    name: str
    measured: FloatArray
    splits: Callable[[int], Sequence[Split]]
    ours: Contender
    plain_columns: FloatArray | None
    bounds: tuple[Bound, ...]
    plain_log_target: bool = True
    floor: Mapping[str, Callable[[], float]] = field(default_factory=dict)
    alternatives: Mapping[str, Contender] = field(default_factory=dict)
    judged: bool = True
    full_only: bool = False


def random_split(n_rows: int, n_train: int) -> Callable[[int], Sequence[Split]]:
    """``n_train`` rows at random, all others to test on."""

    def splits(seed: int) -> Sequence[Split]:
        order = np.random.default_rng([61, seed]).permutation(n_rows)
        return (Split(np.sort(order[:n_train]), np.sort(order[n_train:])),)

    return splits


def unseen_groups(groups: IntArray, n_train: int, share: float = 0.2) -> Callable[[int], Sequence[Split]]:
    """A share of the groups left out to test on; ``n_train`` rows at random of all others."""

    def splits(seed: int) -> Sequence[Split]:
        rng = np.random.default_rng([62, seed])
        unique = rng.permutation(np.unique(groups))
        held = np.isin(groups, unique[: max(1, round(share * len(unique)))])
        order = rng.permutation(np.flatnonzero(~held))
        return (Split(np.sort(order[:n_train]), np.flatnonzero(held)),)

    return splits


def each_group(groups: IntArray, n_train: int, min_rows: int) -> Callable[[int], Sequence[Split]]:
    """Every group of at least ``min_rows`` rows left out once; ``n_train`` rows at random of all others."""

    def splits(seed: int) -> Sequence[Split]:
        rng = np.random.default_rng([63, seed])
        found = []
        for group in np.unique(groups):
            held = groups == group
            if held.sum() >= min_rows:
                order = rng.permutation(np.flatnonzero(~held))
                found.append(Split(np.sort(order[:n_train]), np.flatnonzero(held)))
        return found

    return splits


@dataclass(frozen=True)
class Score:
    """Figures of one contender in one repetition; ``coverage_90`` is NaN without intervals."""

    mape: float
    mae: float
    tau: float
    coverage_90: float
    n_covered: int
    n_test: int


def score(answer: Answer, measured: FloatArray) -> Score:
    """Judge an answer by (n,) measured values."""
    off = answer.value - measured
    inside = -1
    if answer.low is not None and answer.high is not None:
        inside = int(np.count_nonzero((answer.low <= measured) & (measured <= answer.high)))
    return Score(
        float(100 * np.mean(np.abs(off) / np.abs(measured))),
        float(np.mean(np.abs(off))),
        float(kendalltau(answer.value, measured).statistic),
        inside / len(measured) if inside >= 0 else float("nan"),
        max(inside, 0),
        len(measured),
    )
