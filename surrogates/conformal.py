"""Intervals that hold where a search looks: a factor and a shift, learned from what was measured after all.

A predictor that is calibrated on random rows is not where a search proposes points: the search picks what the
predictor over-rates, and picks it where there are few rows (covariate shift).  So errors are looked at in units
of their predicted standard deviation, z = (measured - predicted) / sd, of rows that the predictor did not see:

* *held out*: rows, random and proposed ones, predicted by models of the other folds.  They know what the
  predictor has learned by now, and give the factor on standard deviations by weighted split conformal
  prediction (Tibshirani, Foygel Barber, Candes & Ramdas 2019): proposed rows count in full, random ones together
  like few, so that the more is re-measured near the front the less the random rows say.
* *checked*: proposed rows as they were predicted when they were proposed.  They alone know of the
  selection, and give the shift of the mean.  The same rows held out do not count there a second time.

Rows of one group (a backbone at several clocks) err alike, and count together as one: a predictor that misses one
backbone is not thrice wrong.

Both start at "nothing to correct" and leave it by as much as there is evidence; both are bounded.  They are
worked out anew after each round, from all rounds, the latest counting most, and so adapt to what is re-measured
in the way of Gibbs & Candes (2021), without a rate to be tuned.

The factor is learned on whole errors, noise included, and widens whole intervals.  In draws of the unknown
function, which a search is made on and which hold no noise, it widens the epistemic part: that understates what is needed
only where noise is large, and there intervals depend little on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from ..errors import ModelError
from .models import group_folds, make_model
from .prediction import FloatArray

if TYPE_CHECKING:
    from .selection import TrainingRows

N_FOLDS = 4
"""Groups of rows that are held out in turn."""

LEVEL = 0.9
"""Level of the intervals that the factor makes hold; others follow as of a normal."""

MIN_FACTOR, MAX_FACTOR = 0.9, 3.0
"""Intervals are hardly narrowed: a few rows inside are weak evidence that they are too wide."""

MAX_SHIFT = 1.0
"""Largest shift, in predicted standard deviations."""

RANDOM_WEIGHT = 12.0
"""What all held-out random rows together weigh against one for each proposed row."""

PRIOR_ROWS = 4.0
"""Weight of the claim that there is nothing to widen, in rows."""

SHIFT_PRIOR_ROWS = 6.0
"""The same for the claim that nothing is to be shifted: a mean is estimated worse than a spread."""

CLIP = 3.0
"""An error further out counts as this many standard deviations in the shift: one outlier is no bias."""

ROUND_DISCOUNT = 0.5
"""What a checked row of a round weighs for each round that followed it: the predictors have learned since."""


@dataclass(frozen=True)
class Correction:
    """What is done to predictions of one quantity, on the scale where they are normal.

    Attributes:
        factor: on standard deviations.
        shift: of means, in predicted standard deviations before the factor.
        n_random, n_proposed: groups of held-out rows behind it, measured at random and proposed by a search.
        n_checked: groups of proposed rows behind it whose measurement was predicted beforehand.
    """

    factor: float = 1.0
    shift: float = 0.0
    n_random: int = 0
    n_proposed: int = 0
    n_checked: int = 0

    def normal(self, mean: FloatArray, sd: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Corrected means and standard deviations of normal predictions."""
        return mean + self.shift * sd, self.factor * sd

    def draws(self, draws: FloatArray) -> FloatArray:
        """Corrected joint draws (s, ...): every draw keeps its place among the others, and their ranks."""
        mean, sd = draws.mean(axis=0), draws.std(axis=0)
        return np.asarray(mean + self.shift * sd + self.factor * (draws - mean))

    def raw(self, z: FloatArray) -> FloatArray:
        """Normalised errors of the uncorrected prediction, from those of the corrected one."""
        return np.asarray(self.shift + self.factor * z)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(**document)


UNCORRECTED = Correction()


@dataclass(frozen=True)
class HeldOut:
    """Normalised errors (n,) of rows that their predictor has not seen, and which of them a search proposed.

    Attributes:
        groups: (n,) rows of one group, such as a backbone's, count together as one; ``None`` = each by itself.
    """

    z: FloatArray
    proposed: NDArray[np.bool_]
    groups: NDArray[np.int64] | None = None

    def weights(self) -> FloatArray:
        """(n,) what each row counts: 1 / the rows of its group that are proposed, or not, as it is."""
        if self.groups is None:
            return np.ones(len(self.z))
        own = np.column_stack([self.groups, self.proposed])
        _, place, counts = np.unique(own, axis=0, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / counts[place.reshape(-1)])


def held_out_errors(kind: str, data: TrainingRows, *, seed: int) -> FloatArray:
    """Normalised errors (n,) of training rows, each predicted by a model that has seen no row of its group.

    Args:
        kind: of the model in use.

    Raises:
        ModelError: an unknown kind.
    """
    folds = group_folds(data.groups, N_FOLDS, np.random.default_rng([seed, N_FOLDS]))
    z = np.empty_like(data.y)
    for fold in np.unique(folds):
        held = folds == fold
        fresh = make_model(kind, "y", "", seed=seed, design=data.design)
        predicted = data.take(np.flatnonzero(~held)).fit(fresh).predict(data.x[held])
        z[held] = (data.y[held] - predicted.mean[:, 0]) / predicted.sd_total[:, 0]
    return z


def factor_on_random_rows(z: FloatArray, level: float = LEVEL) -> float:
    """Factor on standard deviations with which central intervals hold on rows drawn as the training rows were.

    The conformal quantile of the sizes of (n,) normalised held-out errors: the ceil((n + 1) level)-th smallest
    (Barber, Candes, Ramdas & Tibshirani 2021, "Predictive inference with the jackknife+", whose cross-validated
    form holds out folds).  Where a search chooses the rows, :func:`learn_correction` is needed instead.

    Raises:
        ModelError: too few errors to say anything at that level: (n + 1) level is above n.
    """
    # The small number undoes the rounding of such products as 0.9 * 110, which is above 99.
    rank = math.ceil((len(z) + 1) * level - 1e-9)
    if rank > len(z):
        raise ModelError(f"{len(z)} held-out errors are too few for {100 * level:g} % intervals")
    return float(np.sort(np.abs(z))[rank - 1] / norm.ppf(0.5 + level / 2))


def factor_on_proposed_rows(z: FloatArray) -> float:
    """Factor on standard deviations where a search looks, from errors (k,) of rows that it proposed.

    For a predictor whose spread was learned on rows far from the front, and is too wide near it: a stationary
    process that has seen the smallest network and the best has one variance for both.  The errors are best those of
    each row predicted from the rows before it (:meth:`.gp.GaussianProcess.successive_errors`), which need no further
    fit.  Root mean square, outliers clipped, shrunk towards 1 by :data:`PRIOR_ROWS`.
    """
    squares = float((np.clip(z, -CLIP, CLIP) ** 2).sum())
    return math.sqrt((squares + PRIOR_ROWS) / (len(z) + PRIOR_ROWS))


def learn_correction(held_out: HeldOut, checked: Sequence[FloatArray] = ()) -> Correction:
    """Factor and shift of one quantity.

    Args:
        held_out: rows predicted by models of other folds, by today's kind of predictor.
        checked: normalised errors of proposed rows when they were proposed, uncorrected, by round; one value per
            group, the mean of its rows.
    """
    weights = held_out.weights()
    random, proposed = ~held_out.proposed, held_out.proposed
    # Whole groups: the weights of each add up to 1.
    n_random, n_proposed = round(weights[random].sum()), round(weights[proposed].sum())
    shift = _shift(checked)
    # The shift is what proposed rows have in common; random rows have none.
    sizes = np.abs(held_out.z - np.where(proposed, shift, 0.0))
    share = min(1.0, RANDOM_WEIGHT / n_random) if n_random else 0.0
    total = n_proposed + share * n_random
    to_come = (n_proposed + share**2 * n_random) / total if total else 0.0
    factor = _factor(sizes, np.where(proposed, weights, share * weights), to_come)
    return Correction(factor, shift, n_random, n_proposed, sum(len(z) for z in checked))


def _shift(checked: Sequence[FloatArray]) -> float:
    """Weighted mean of clipped errors, shrunk towards 0."""
    total, weight = 0.0, 0.0
    for age, z in enumerate(reversed(checked)):
        total += ROUND_DISCOUNT**age * float(np.clip(z, -CLIP, CLIP).sum())
        weight += ROUND_DISCOUNT**age * len(z)
    return float(np.clip(total / (weight + SHIFT_PRIOR_ROWS), -MAX_SHIFT, MAX_SHIFT))


def _factor(sizes: FloatArray, weights: FloatArray, to_come: float) -> float:
    """Where the weighted share of |z| below reaches the level, one group yet to come counted as beyond.

    That group weighs as one of as many equal groups as say as much (Kish's effective size).  The errors seen are
    mixed with those that a right predictor would make (:data:`PRIOR_ROWS` of them), which makes the share rise
    without steps, and beyond the last error seen.
    """
    if weights.sum() == 0.0:
        return 1.0
    half_width = float(norm.ppf(0.5 + LEVEL / 2))
    order = np.argsort(sizes, kind="stable")
    seen, below = sizes[order], np.cumsum(weights[order])
    needed = LEVEL * (float(below[-1]) + PRIOR_ROWS + to_come)

    def lacking(factor: float) -> float:
        reach = factor * half_width
        # Linear between the errors seen, so that the factor is continuous in them.
        held = float(np.interp(reach, np.append(0.0, seen), np.append(0.0, below)))
        return needed - held - PRIOR_ROWS * (2.0 * float(norm.cdf(reach)) - 1.0)

    if lacking(MIN_FACTOR) <= 0.0:
        return MIN_FACTOR
    if lacking(MAX_FACTOR) >= 0.0:
        return MAX_FACTOR
    found = brentq(lacking, MIN_FACTOR, MAX_FACTOR, xtol=1e-6)
    return float(found)
