"""Which samples are right where: the dependence between exits, fitted to a measured outcome matrix.

How many samples an exit gets right says nothing of which.  If exits failed independently of each
other, almost every sample would be right somewhere; if a sample's difficulty decided alone, hardly
any more than at the best exit.  Real exits lie between, the closer the more alike.

The model is a Gaussian copula.  Every sample has a latent *ease* per exit, standard normal, and an
exit is right where the ease exceeds the threshold that leaves its fraction right; the score that a
controller reads (the largest softmax probability, say) is another normal after a monotone
transform.  Correlations between eases are tetrachoric (Pearson 1900: those at which two thresholds
cut the bivariate normal as they cut the samples), those between an ease and a score biserial, those
between scores of ranks.

Eases are then drawn given the very bits and scores that were measured, so that a backbone with other
fractions right is had by moving the thresholds alone: bits stay as measured where fractions do, and
flip, where they must, as the dependence between exits and with the scores says.

Shapes: n samples, e exits (the last is the final classifier).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from ..errors import ModelError
from .prediction import FloatArray
from .threads import single_thread

BoolArray = NDArray[np.bool_]

MAX_CORRELATION = 0.995
"""Tables with an empty corner would say 1, of which no finite sample can be sure."""

N_SWEEPS = 6
"""Gibbs sweeps after eases were drawn exit by exit, each given those before it."""

_MIN_EIGENVALUE = 1e-3
_TAIL = 1e-12
_GRID = np.tanh(np.linspace(-3.8, 3.8, 241))
"""Correlations at which bivariate normal probabilities are tabulated, denser towards -1 and 1."""


def tetrachoric(correct: BoolArray) -> FloatArray:
    """Tetrachoric correlations (e, e) of the columns of (n, e) bits.

    From d P(z_1 > a, z_2 > b) / d rho = bivariate normal density at (a, b) (Sheppard 1899), integrated from
    independence and solved for the observed share of samples right at both.  Where one of the four cells of
    a pair is empty, each is given half a sample; a column that is constant says nothing of any other, and
    has correlation 0.
    """
    n, e = correct.shape
    one, two = np.triu_indices(e, 1)
    bits = correct.astype(np.float64)
    n_one, n_two, n_both = bits.sum(axis=0)[one], bits.sum(axis=0)[two], (bits.T @ bits)[one, two]
    cells = np.stack([n_both, n_one - n_both, n_two - n_both, n - n_one - n_two + n_both])
    added = np.where((cells == 0).any(axis=0), 0.5, 0.0)
    total = n + 4 * added
    p_one, p_two = ((count + 2 * added) / total for count in (n_one, n_two))
    a, b = (ndtri(1.0 - share)[:, None] for share in (p_one, p_two))
    density = np.exp(-(a**2 - 2 * _GRID * a * b + b**2) / (2 * (1 - _GRID**2)))
    density /= 2 * np.pi * np.sqrt(1 - _GRID**2)
    steps = 0.5 * (density[:, 1:] + density[:, :-1]) * np.diff(_GRID)
    joint = np.concatenate([np.zeros((len(one), 1)), np.cumsum(steps, axis=1)], axis=1)
    centre = len(_GRID) // 2
    joint += (p_one * p_two)[:, None] - joint[:, centre : centre + 1]
    both = (n_both + added) / total
    found = np.array([np.interp(share, row, _GRID) for share, row in zip(both, joint, strict=True)])
    constant = (correct == correct[0]).all(axis=0)
    found[constant[one] | constant[two]] = 0.0
    correlation = np.eye(e)
    correlation[one, two] = correlation[two, one] = np.clip(found, -MAX_CORRELATION, MAX_CORRELATION)
    return correlation


def normal_scores(values: FloatArray) -> FloatArray:
    """Columns of (n, e) as standard normal quantiles of their ranks, ties shared."""
    ranks = rankdata(values, axis=0)
    return np.asarray(ndtri((ranks - 0.5) / len(values)))


@dataclass(frozen=True)
class ExitDependence:
    """The dependence in one measured matrix, with eases drawn to agree with it.

    Attributes:
        correlation: (2 e, 2 e) of the eases, then of the scores.
        ease: (n, e); column j is right exactly where it is among the n f_j largest of its column.
    """

    correlation: FloatArray
    ease: FloatArray

    @classmethod
    def fit(cls, correct: BoolArray, scores: FloatArray, *, seed: int) -> ExitDependence:
        """Fit to (n, e) bits and the (n, e) scores of a controller.

        Args:
            seed: of the draw of the eases.

        Raises:
            ModelError: shapes that differ, scores that are not finite, or fewer than two samples.
        """
        scores = np.asarray(scores, dtype=np.float64)
        if correct.ndim != 2 or correct.shape != scores.shape or len(correct) < 2:
            raise ModelError(
                f"outcomes {correct.shape} and scores {scores.shape}: expected two (samples, exits) arrays "
                "of the same shape with at least two samples"
            )
        if not np.isfinite(scores).all():
            raise ModelError(
                f"scores of exit {int(np.argwhere(~np.isfinite(scores))[0, 1])} are not all finite"
            )
        with single_thread():
            normal = normal_scores(scores)
            correlation = _correlation(correct, normal)
            ease = _draw(correct, normal, correlation, np.random.default_rng(seed))
        return cls(correlation, ease)


def _correlation(correct: BoolArray, normal: FloatArray) -> FloatArray:
    """Positive definite correlation (2 e, 2 e) of eases and normal scores."""
    n, e = correct.shape
    right = np.clip(correct.mean(axis=0), 0.5 / n, 1 - 0.5 / n)
    density = np.exp(-0.5 * ndtri(right) ** 2) / np.sqrt(2 * np.pi)
    spread = normal.std(axis=0)
    known = np.where(spread > 0, normal / np.where(spread > 0, spread, 1.0), 0.0)
    biserial = (correct - correct.mean(axis=0)).T @ known / n / density[:, None]
    full = np.eye(2 * e)
    full[:e, :e] = tetrachoric(correct)
    full[:e, e:] = np.clip(biserial, -MAX_CORRELATION, MAX_CORRELATION)
    full[e:, :e] = full[:e, e:].T
    full[e:, e:] = known.T @ known / n
    np.fill_diagonal(full, 1.0)
    # Pairwise estimates need not fit together: the nearest by clipped eigenvalues, scaled back.
    values, vectors = np.linalg.eigh(full)
    fitted = (vectors * np.maximum(values, _MIN_EIGENVALUE)) @ vectors.T
    scale = np.sqrt(np.diag(fitted))
    return np.asarray(fitted / np.outer(scale, scale))


def _draw(
    correct: BoolArray, normal: FloatArray, correlation: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Eases (n, e) given bits and scores: exit by exit, then Gibbs sweeps over all."""
    n, e = correct.shape
    threshold = ndtri(1.0 - np.clip(correct.mean(axis=0), 0.5 / n, 1 - 0.5 / n))
    above = np.nextafter(threshold, np.inf)
    values = np.hstack([np.zeros((n, e)), normal])
    first = [_given(correlation, j, [*range(j), *range(e, 2 * e)]) for j in range(e)]
    sweep = [_given(correlation, j, [i for i in range(2 * e) if i != j]) for j in range(e)]
    for conditionals in (first, *[sweep] * N_SWEEPS):
        for j, (weight, sd) in enumerate(conditionals):
            mean = values @ weight
            below = ndtr((threshold[j] - mean) / sd)
            uniform = rng.random(n)
            share = np.where(correct[:, j], below + (1.0 - below) * uniform, below * uniform)
            drawn = mean + sd * ndtri(np.minimum(np.maximum(share, _TAIL), 1.0 - _TAIL))
            # Far out in the tails rounding may carry a draw across the threshold.
            values[:, j] = np.where(
                correct[:, j], np.maximum(drawn, above[j]), np.minimum(drawn, threshold[j])
            )
    return values[:, :e]


def _given(correlation: FloatArray, j: int, others: list[int]) -> tuple[FloatArray, float]:
    """Weights (2 e,), zero but for the others, and standard deviation of a normal given others."""
    weight = np.zeros(len(correlation))
    weight[others] = np.linalg.solve(correlation[np.ix_(others, others)], correlation[others, j])
    variance = 1.0 - float(weight @ correlation[:, j])
    return weight, math.sqrt(max(variance, _MIN_EIGENVALUE))
