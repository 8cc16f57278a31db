"""Thresholds from target shares of exits, searched along one parameter as MSDNet does.

Huang et al., "Multi-Scale Dense Networks for Resource Efficient Image Classification", ICLR 2018,
section 5 ("budgeted batch classification"): the share of samples that leaves at the k-th classifier
is q^k, normalised, with one q for all; small q leaves early, q above 1 leaves late.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ....datasets.records import OutcomeMatrix
from ....errors import ConfigError
from .controller import DEFAULT_TOLERANCE
from .outcome import BoolArray, ExitCosts, FloatArray, checked_mask, expected_cost, outcome_at
from .thresholds import MAX_SOFTMAX, Score, ThresholdRule

SHARE_RATIOS: FloatArray = np.arange(1, 41) / 20
"""The 40 values of q that a search tries: 0.05 to 2."""


@dataclass(frozen=True)
class ShareCurve:
    """Accuracy against cost on the calibration split, one point per q; the last lets nobody leave early.

    Attributes:
        ratio: (g,) q of each point; infinity for the last.
        accuracy: (g,) fraction correct.
        cost: (g,) expected cost, in the unit of the costs it was made with.
        thresholds: (g, e).
    """

    ratio: FloatArray
    accuracy: FloatArray
    cost: FloatArray
    thresholds: FloatArray


@dataclass(frozen=True)
class ShareThresholds:
    """The point of a share curve that is cheapest within a tolerance, or most accurate within a budget.

    Attributes:
        costs: of the network that the rule is for; decides which point is cheap.
        score: what thresholds are set on.
        tolerance: accuracy, as a fraction, that may be lost against the full network on the
            calibration split; ``None`` if ``budget`` decides.
        budget: largest expected cost, in the unit of ``costs``; ``None`` if ``tolerance`` decides.
    """

    costs: ExitCosts
    score: Score = MAX_SOFTMAX
    tolerance: float | None = DEFAULT_TOLERANCE
    budget: float | None = None
    causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if (self.tolerance is None) == (self.budget is None):
            raise ConfigError(
                f"tolerance = {self.tolerance}, budget = {self.budget}: shares are chosen by one of the two; "
                "set the other to None"
            )

    @property
    def name(self) -> str:
        """``MSDNet shares``, and the score if it is another than MSDNet's."""
        return "MSDNet shares" if self.score == MAX_SOFTMAX else f"MSDNet shares, {self.score.name}"

    def curve(self, calibration: OutcomeMatrix, mask: BoolArray) -> ShareCurve:
        """Every point of the search, and last the network run to its end."""
        used = checked_mask(calibration, mask)
        values = self.score.values(calibration)
        targets = [target_shares(float(q), int(used.sum()) + 1) for q in SHARE_RATIOS]
        thresholds = [share_thresholds(values, used, target) for target in targets]
        thresholds.append(np.append(np.full(len(used), np.inf), 0.0))
        accuracy, cost = [], []
        for point in thresholds:
            rule = ThresholdRule(self.score, point)
            outcome = outcome_at(calibration.correct, rule.leaves_at(calibration))
            accuracy.append(outcome.accuracy)
            cost.append(expected_cost(outcome, self.costs.cumulative(rule.evaluated)))
        ratio = np.append(SHARE_RATIOS, np.inf)
        return ShareCurve(ratio, np.array(accuracy), np.array(cost), np.stack(thresholds))

    def fit(self, calibration: OutcomeMatrix, mask: BoolArray) -> ThresholdRule:
        """The chosen point; among equals, the more accurate or the cheaper.

        Raises:
            ConfigError: no point is within the budget.
        """
        curve = self.curve(calibration, mask)
        if self.budget is None:
            assert self.tolerance is not None
            able = np.flatnonzero(curve.accuracy >= curve.accuracy[-1] - self.tolerance - 1e-9)
            order = np.lexsort((-curve.accuracy[able], curve.cost[able]))
        else:
            able = np.flatnonzero(curve.cost <= self.budget)
            if not len(able):
                raise ConfigError(
                    f"budget = {self.budget:g} per sample: the cheapest shares cost {curve.cost.min():g}; raise it, "
                    "or use an earlier exit"
                )
            order = np.lexsort((curve.cost[able], -curve.accuracy[able]))
        return ThresholdRule(self.score, curve.thresholds[able[order[0]]])


def target_shares(q: float, n_classifiers: int) -> FloatArray:
    """(n_classifiers,) shares proportional to q^k for k = 1, 2, ..., which sum to 1."""
    powers = q ** np.arange(1, n_classifiers + 1, dtype=np.float64)
    return np.asarray(powers / powers.sum())


def share_thresholds(values: FloatArray, mask: BoolArray, shares: FloatArray) -> FloatArray:
    """Thresholds that let a target share of all samples leave at each exit in use.

    Exits are walked in order of depth; at each, the surest of the samples that are still there
    leave, floor(n x share) of them.  Samples of equal score leave together, so more may.

    Args:
        values: (n, e) scores.
        mask: (P,) exits in use.
        shares: one per exit in use, and one for the final classifier, which takes who is left.

    Returns:
        (e,) thresholds; infinity where nobody is to leave.
    """
    n, e = values.shape
    thresholds = np.append(np.full(e - 1, np.inf), 0.0)
    staying = np.ones(n, dtype=bool)
    for column, share in zip(np.flatnonzero(mask), shares, strict=False):
        scores = values[staying, column]
        wanted = min(math.floor(n * share), len(scores))
        if wanted > 0:
            thresholds[column] = -np.partition(-scores, wanted - 1)[wanted - 1]
            staying &= values[:, column] < thresholds[column]
    return thresholds
