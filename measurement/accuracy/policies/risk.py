"""One threshold for all exits, chosen so that early exits provably lose little against the full network.

The risk of a threshold is the expected loss of leaving early,

    R = P(the full network is right and the decision where the sample leaves is wrong).

Thresholds of a fixed grid are tested from the safest on, each at level delta, and the last one
before the first failure is taken: fixed-sequence testing, which keeps the chance that the risk of
the chosen threshold exceeds epsilon at delta or below, whatever the data (Angelopoulos, Bates,
Candes, Jordan, Lei: "Learn then Test", 2021; for early exits: Jazbec et al., "Fast yet Safe:
Early-Exiting with Risk Control", NeurIPS 2024).  The probability is over calibration splits.

The promise is void where the scores themselves were made from the calibration split, for the losses
are not independent of the scores then.  Temperatures that :func:`~..evaluation.evaluate_splits` fits
(``temperature: fitted``) are: one number per exit from all images, so little is lost, but nothing is
proven.  The same goes for networks that a search has chosen by their outcomes on that split: the
guarantee is that of one network, given beforehand, whose scores are at temperature 1.

Copies of one image are no independent samples, so the loss of an image is the mean over its copies,
and the risk is that of an image drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ....datasets.records import OutcomeMatrix
from ....errors import ConfigError
from .outcome import BoolArray, FloatArray, IntArray, checked_mask, first_allowed
from .thresholds import MAX_SOFTMAX, Score, ThresholdRule, restricted

BoundName = Literal["betting", "hoeffding-bentkus"]
Excludes = Callable[[FloatArray, float, float], bool]

THRESHOLD_GRID: FloatArray = 1.0 - (np.arange(201) / 200) ** 2
"""Thresholds tested, safest first: 1 to 0, denser towards 1, where confident networks differ."""


@dataclass(frozen=True, slots=True)
class RiskControlled:
    """The smallest threshold whose risk is at most ``epsilon``, with confidence ``1 - delta``.

    Where no threshold of the grid passes, nobody leaves early, which has no risk.

    Attributes:
        epsilon: largest risk, as a fraction of images.
        delta: chance, over calibration splits, that the risk is larger nevertheless.
        score: what is compared.
        bound: ``betting`` (Waudby-Smith and Ramdas) or ``hoeffding-bentkus``.
        seed: of the order in which images are betted on.
    """

    epsilon: float = 0.02
    delta: float = 0.1
    score: Score = MAX_SOFTMAX
    bound: BoundName = "betting"
    seed: int = 0
    causal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for field, value in (("epsilon", self.epsilon), ("delta", self.delta)):
            if not 0 < value < 1:
                raise ConfigError(f"{field} = {value}: must lie between 0 and 1, both excluded")
        if self.bound not in BOUNDS:
            raise ConfigError(f"no bound '{self.bound}'; known: {sorted(BOUNDS)}")

    @property
    def name(self) -> str:
        """``risk-controlled``, and the score if it is another than max-softmax."""
        return "risk-controlled" if self.score == MAX_SOFTMAX else f"risk-controlled, {self.score.name}"

    def fit(self, calibration: OutcomeMatrix, mask: BoolArray) -> ThresholdRule:
        """Test the grid from the safest threshold on, until the first one fails."""
        used, values = checked_mask(calibration, mask), self.score.values(calibration)
        images, safest = self._images(calibration), math.inf
        for threshold in THRESHOLD_GRID:
            leaves = values >= threshold
            leaves[:, -1] = True
            losses = images.means(early_losses(calibration, first_allowed(leaves, used)))
            if not BOUNDS[self.bound](losses, self.epsilon, self.delta):
                break
            safest = float(threshold)
        return ThresholdRule(self.score, restricted(np.full(len(used) + 1, safest), used))

    def _images(self, matrix: OutcomeMatrix) -> _Images:
        groups, member, copies = np.unique(matrix.group, return_inverse=True, return_counts=True)
        return _Images(member, copies, np.random.default_rng(self.seed).permutation(len(groups)))


def early_losses(matrix: OutcomeMatrix, leaves_at: IntArray) -> FloatArray:
    """(n,) 1 where the full network is right and the decision at ``leaves_at`` (n,) wrong, else 0."""
    early = np.take_along_axis(matrix.correct, leaves_at[:, None], axis=1)[:, 0]
    return np.asarray(matrix.correct[:, -1] & ~early, dtype=np.float64)


@dataclass(frozen=True)
class _Images:
    """Which of g images each sample shows.

    Attributes:
        member: (n,) number of the image.
        copies: (g,) samples of each image.
        order: (g,) the order in which images are betted on.
    """

    member: IntArray
    copies: IntArray
    order: IntArray

    def means(self, losses: FloatArray) -> FloatArray:
        """(g,) mean of (n,) losses over each image, in that order."""
        return np.asarray((np.bincount(self.member, weights=losses) / self.copies)[self.order])


# -- confidence bounds on the mean of independent values in [0, 1] -------------------------------------


def hoeffding_bentkus_excludes(losses: FloatArray, risk: float, delta: float) -> bool:
    """Whether the Hoeffding-Bentkus test rules out, at level ``delta``, a mean above ``risk``.

    With m the mean of n losses, its p-value is the smaller of exp(-n h(min(m, risk), risk)), where
    h is the relative entropy of two Bernoulli variables, and e P(Binomial(n, risk) <= ceil(n m))
    (Bates et al., "Distribution-Free, Risk-Controlling Prediction Sets", JACM 2021, section 3.1).
    """
    if not 0 < risk < 1:
        return risk >= 1
    n, total = len(losses), float(losses.sum())
    mean = total / n
    if mean >= risk:
        return False
    hoeffding = -n * _bernoulli_divergence(mean, risk)
    bentkus = 1.0 + _log_binomial_cdf(math.ceil(total - 1e-9), n, risk)
    return min(hoeffding, bentkus) <= math.log(delta)


def betting_excludes(losses: FloatArray, risk: float, delta: float) -> bool:
    """Whether a gambler who bets against a mean above ``risk`` ever multiplies the stake by 1 / ``delta``.

    The capital after i losses L_1 .. L_i is the product of 1 - nu_j (L_j - risk); the bet is
    nu_i = min(1, sqrt(2 log(1 / delta) / (n s_{i-1}))), with the running estimates
    m_i = (1/2 + L_1 + .. + L_i) / (i + 1) and s_i = (1/4 + (L_1 - m_1)^2 + .. + (L_i - m_i)^2) / (i + 1),
    s_0 = 1/4 (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
    JRSS B 2024; in this one-sided form Bates et al., 2021, section 3.1).  The capital grows with
    ``risk``, so the risks that are not excluded form an interval.

    Args:
        losses: (n,) in [0, 1], in an order that does not depend on them.
    """
    n = len(losses)
    count = np.arange(2, n + 2)
    mean = (0.5 + np.cumsum(losses)) / count
    variance = (0.25 + np.cumsum((losses - mean) ** 2)) / count
    before = np.append(0.25, variance[:-1])
    bet = np.minimum(1.0, np.sqrt(2.0 * math.log(1.0 / delta) / (n * before)))
    # A gambler who lost everything (a factor of 0) stays at 0.
    factors = np.maximum(1.0 - bet * (losses - risk), 0.0)
    with np.errstate(divide="ignore"):
        capital = np.cumsum(np.log(factors))
    return bool(capital.max() >= math.log(1.0 / delta))


BOUNDS: dict[BoundName, Excludes] = {
    "betting": betting_excludes,
    "hoeffding-bentkus": hoeffding_bentkus_excludes,
}


def _bernoulli_divergence(p: float, q: float) -> float:
    """Relative entropy of Bernoulli(p) to Bernoulli(q), in nats, for q in (0, 1)."""
    first = p * math.log(p / q) if p > 0 else 0.0
    return first + ((1 - p) * math.log((1 - p) / (1 - q)) if p < 1 else 0.0)


def _log_binomial_cdf(k: int, n: int, p: float) -> float:
    """log P(Binomial(n, p) <= k), summed in logarithms; p in (0, 1)."""
    if k >= n:
        return 0.0
    chosen = np.arange(1, k + 1)
    log_ways = np.append(0.0, np.cumsum(np.log(n - chosen + 1.0) - np.log(chosen)))
    successes = np.arange(k + 1)
    terms = log_ways + successes * math.log(p) + (n - successes) * math.log1p(-p)
    peak = float(terms.max())
    return peak + math.log(float(np.exp(terms - peak).sum()))
