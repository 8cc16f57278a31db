"""What a policy does with samples, and what that costs.

Shapes: n samples, P exit positions, e = P + 1 columns (the last is the final classifier).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ....datasets.records import OutcomeMatrix, Statistic, clustered_standard_error
from ....errors import ConfigError

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

Z_95 = 1.959964
"""Half the width of a central 95 % interval, in standard errors of a normal value."""


@dataclass(frozen=True)
class PolicyOutcome:
    """What a policy does with a set of samples.

    Attributes:
        accuracy: fraction of samples classified correctly.
        shares: (e,) fraction of samples that leave at each column; 0 at exits not in use.
        leaves_at: (n,) column where each sample leaves.
        correct: (n,) bool, whether each sample is classified correctly there.
    """

    accuracy: float
    shares: FloatArray
    leaves_at: IntArray
    correct: BoolArray

    def accuracy_statistic(self, group: NDArray[np.int32]) -> Statistic:
        """Accuracy with its standard error clustered by image; ``n`` counts images.

        Args:
            group: (n,) index of the underlying image.
        """
        return mean_statistic(self.correct, group)


class Rule(Protocol):
    """A policy with its thresholds fixed."""

    @property
    def evaluated(self) -> BoolArray:
        """(P,) exits whose heads a sample runs when it gets there; nobody leaves at the others."""
        ...

    def leaves_at(self, matrix: OutcomeMatrix) -> IntArray:
        """(n,) column where each sample leaves."""
        ...


class Policy(Protocol):
    """A way to decide where samples leave; thresholds, if any, come from a split of their own."""

    @property
    def name(self) -> str:
        """For people, such as ``max-softmax``."""
        ...

    @property
    def causal(self) -> bool:
        """Whether it decides from what a network knows by then; an oracle does not."""
        ...

    def fit(self, calibration: OutcomeMatrix, mask: BoolArray) -> Rule:
        """Fix the thresholds.

        Args:
            calibration: outcomes that the rule may be fitted to.
            mask: (P,) exits in use.
        """
        ...


def run_policy(
    policy: Policy, calibration: OutcomeMatrix, judged: OutcomeMatrix, mask: BoolArray
) -> PolicyOutcome:
    """Fit a policy on one split and judge it on another, with the exits of ``mask`` (P,) in use."""
    return outcome_at(judged.correct, policy.fit(calibration, mask).leaves_at(judged))


def checked_mask(matrix: OutcomeMatrix, mask: BoolArray) -> BoolArray:
    """The mask as (P,) bool.

    Raises:
        ConfigError: its length is not the number of exit positions of the matrix.
    """
    checked = np.asarray(mask, dtype=bool)
    if checked.shape != (matrix.n_exits - 1,):
        raise ConfigError(
            f"mask of exits in use has shape {checked.shape}; the outcome matrix has {matrix.n_exits - 1} exit "
            "positions, and the final classifier, always in use, is not part of the mask"
        )
    return checked


def first_allowed(leaves: BoolArray, mask: BoolArray) -> IntArray:
    """(n,) first column in use that lets each sample leave.

    Args:
        leaves: (n, e) whether a sample may leave there; the last column must be True.
        mask: (P,) exits in use.
    """
    in_use = np.append(np.asarray(mask, dtype=bool), True)
    return np.asarray(np.argmax(leaves & in_use, axis=1), dtype=np.int64)


def outcome_at(correct: BoolArray, leaves_at: IntArray) -> PolicyOutcome:
    """The outcome of leaving at (n,) given columns of an (n, e) correctness matrix."""
    right = np.take_along_axis(correct, leaves_at[:, None], axis=1)[:, 0]
    shares = np.bincount(leaves_at, minlength=correct.shape[1]) / len(correct)
    return PolicyOutcome(float(right.mean()), shares, leaves_at, right)


@dataclass(frozen=True)
class ExitCosts:
    """What the parts of one early-exit network cost per inference, in any one unit (mJ, ms, MACs).

    Attributes:
        segment: (e,) the backbone from the column before up to this one.
        head: (P,) the exit head of each position.
    """

    segment: FloatArray
    head: FloatArray

    @classmethod
    def of_stages(cls, stages: Sequence[float], mask: BoolArray) -> Self:
        """From the stages of a network that has exits where ``mask`` (P,) says.

        Args:
            stages: segment, head, segment, head, ..., final segment, in execution order.

        Raises:
            ConfigError: another number of stages than the exits in use need.
        """
        n_in_use = int(np.sum(mask))
        if len(stages) != 2 * n_in_use + 1:
            raise ConfigError(f"{n_in_use} exits need {2 * n_in_use + 1} stage costs, not {len(stages)}")
        columns = np.append(np.flatnonzero(mask), len(mask))
        segment, head = np.zeros(len(mask) + 1), np.zeros(len(mask))
        segment[columns], head[columns[:-1]] = stages[0::2], stages[1::2]
        return cls(segment, head)

    def cumulative(self, evaluated: BoolArray) -> FloatArray:
        """(e,) cost of a sample that leaves at each column.

        Args:
            evaluated: (P,) heads that a sample runs on its way, the one it leaves at included.
        """
        stages = np.zeros(2 * len(self.head) + 1)
        stages[0::2] = self.segment
        stages[1::2] = np.where(evaluated, self.head, 0.0)
        running = np.cumsum(stages)
        return np.append(running[1::2], running[-1])


def expected_cost(outcome: PolicyOutcome, cumulative_cost: FloatArray) -> float:
    """Mean cost per sample, in the unit of ``cumulative_cost`` (e,); see :meth:`ExitCosts.cumulative`."""
    return float(cumulative_cost[outcome.leaves_at].mean())


def expected_cost_statistic(
    outcome: PolicyOutcome, cumulative_cost: FloatArray, group: NDArray[np.int32]
) -> Statistic:
    """:func:`expected_cost` with the sampling error of who leaves where, clustered by image."""
    return mean_statistic(cumulative_cost[outcome.leaves_at], group)


def mean_statistic(values: NDArray[np.generic], group: NDArray[np.int32]) -> Statistic:
    """Mean of (n,) values and its standard error, clustered by (n,) group; ``n`` counts groups."""
    error = clustered_standard_error(values, group)
    return Statistic(float(np.mean(values.astype(np.float64))), error, len(np.unique(group)))


def interval_95(statistic: Statistic) -> tuple[float, float]:
    """Central 95 % interval of a mean, by the normal approximation."""
    half = Z_95 * statistic.standard_error
    return statistic.value - half, statistic.value + half
