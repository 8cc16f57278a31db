"""What a measurement tells about other points: variance that it takes from those near the front.

Joint draws say how much is not known of each point and what points have in common.  Measuring a
point takes from every other point the share r^2 of its variance, r being their correlation over
draws (the conditional variance of a joint normal: Cohn, Neural Networks 1996, "integrated" over the
points of interest: Sacks et al., Statistical Science 1989).  With few draws chance alone makes
correlations, of r^2 = 1 / degrees of freedom on average; that is taken off.

Points count by their probability to improve the front: what nobody would choose need not be known.

Shapes: s draws, n points in the pool, q measured points, m objectives; values in units of
:func:`.batch.reference_scale`, so that objectives can be added up.
"""

from __future__ import annotations

import numpy as np

from ..spaces import IntArray
from .ranking import front_indices
from .tables import FloatArray

N_TARGETS = 256
"""Points of interest, the likeliest to improve the front; bounds memory and time on large pools."""

_BLOCK = 512
"""Points that are weighed at once, against all points of interest."""

N_REDRAWS = 256
"""Redraws of measured points within their errors, behind the probability of being on the front."""

UNDECIDED = (0.05, 0.95)
"""A point whose probability of being on the front lies between these is worth measuring again."""


class Knowledge:
    """What would still be unknown of a pool after some of it is measured."""

    def __init__(self, draws: FloatArray, relevance: FloatArray) -> None:
        """Everything unknown.

        Args:
            draws: (s, n, m).
            relevance: (n,) weight of each point, its probability to improve the front; if all
                are 0, all count the same.
        """
        self._residual = draws - draws.mean(axis=0)
        weight = relevance if relevance.any() else np.ones(len(relevance))
        self._targets: IntArray = np.sort(np.argsort(-weight, kind="stable")[:N_TARGETS])
        self._weight = weight[self._targets]
        self._n_learned = 0
        variance = (self._residual[:, self._targets] ** 2).mean(axis=0).sum(axis=1)
        self.total = float((self._weight * variance).sum())
        """Relevant variance before anything was learned: what shares are shares of."""

    def learn(self, j: int) -> None:
        """Condition on point ``j`` of the pool being measured."""
        self._condition(self._residual[:, j].copy())
        self._residual[:, j] = 0.0

    def learn_of(self, draws: FloatArray) -> None:
        """Condition on another point (s, m), one that is being measured."""
        self._condition(draws - draws.mean(axis=0))

    def _condition(self, known: FloatArray) -> None:
        # Each known point uses up a degree of freedom; conditioned on half as many as there are
        # draws, what is left would be chance.
        if self._n_learned >= (len(known) - 1) // 2:
            return
        self._n_learned += 1
        for k in range(known.shape[1]):
            own = known[:, k]
            square = float((own**2).sum())
            if square > 0:
                slope = np.einsum("s,sn->n", own, self._residual[:, :, k]) / square
                self._residual[:, :, k] -= own[:, None] * slope

    def learned_shares(self, which: IntArray) -> FloatArray:
        """(len(which),) share of the relevant variance that measuring each point would take away."""
        if self.total <= 0 or not len(which):
            return np.zeros(len(which))
        parts = [self._taken(which[start : start + _BLOCK]) for start in range(0, len(which), _BLOCK)]
        return np.concatenate(parts) / self.total

    def _taken(self, which: IntArray) -> FloatArray:
        n_draws = len(self._residual)
        freedom = max(n_draws - 1 - self._n_learned, 2)
        taken = np.zeros(len(which))
        for k in range(self._residual.shape[2]):
            own, target = self._residual[:, which, k], self._residual[:, self._targets, k]
            own_square, square = (own**2).sum(axis=0), (target**2).sum(axis=0)
            # No matrix product of BLAS: its rounding depends on the number of threads.
            common = np.einsum("sc,st->ct", own, target)
            scale = np.outer(own_square, square)
            r2 = np.divide(common**2, scale, out=np.zeros_like(scale), where=scale > 0)
            r2 = np.maximum((r2 * freedom - 1.0) / (freedom - 1.0), 0.0)
            taken += (r2 * (self._weight * square)).sum(axis=1) / n_draws
        return taken


def undecided_variance(measured: FloatArray, standard_errors: FloatArray) -> FloatArray:
    """(q,) variance that measuring each point again would take away, weighted by how open its place is.

    A repeat halves the variance of a point's error.  It counts by 2 min(p, 1 - p), p being the
    probability that the point is on the front, over redraws of all points within their errors;
    a point whose place is decided (see :data:`UNDECIDED`) counts nothing.

    Args:
        measured, standard_errors: (q, m).
    """
    rng = np.random.default_rng(0)
    on_front = np.zeros(len(measured))
    for _ in range(N_REDRAWS):
        on_front[front_indices(measured + standard_errors * rng.standard_normal(measured.shape))] += 1
    probability = on_front / N_REDRAWS
    is_open = (probability > UNDECIDED[0]) & (probability < UNDECIDED[1])
    weight = np.where(is_open, 2.0 * np.minimum(probability, 1.0 - probability), 0.0)
    return np.asarray(weight * (standard_errors**2).sum(axis=1) / 2.0)
