"""How far a Gaussian process errs on networks that it is asked to do without, in its own standard deviations.

Hyper-parameters are single numbers, chosen to make the rows likely: what is not known of them is in no posterior,
and a posterior of few dozen rows with as many features is too sure of sums of rows above all, whose errors have to
agree.  Rows left out of the conditioning tell by how much, and cost no fit: with C the covariance of n rows and b
those of one network, the errors of b without b are (C^-1_bb)^-1 (C^-1 (y - mean))_b, and their covariance is
(C^-1_bb)^-1 (Sundararajan & Keerthi 2001, "Predictive approaches for choosing hyperparameters in Gaussian processes",
for single rows).  Their mean square is the variance by cross-validation of Bachoc (2013), "Cross validation and
maximum likelihood estimations of hyper-parameters of Gaussian processes with model misspecification".
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import inv

from .few_rows import widening_of_few
from .models import IntArray
from .prediction import FloatArray
from .selection import MIN_CV_GROUPS


def left_out_spread(
    inverse: FloatArray, solved: FloatArray, size: FloatArray, groups: IntArray, records: IntArray
) -> float:
    """Root mean square error of totals of networks left out, in standard deviations; 1 at least.

    A total's error is the mean of its values', weighted by their sizes.  Too few networks to leave one out say
    nothing, and a posterior that was too unsure of some is not made surer of all.  Larger by the ratio of Student's t
    to the normal, as the square is a mean over so many networks.

    Args:
        inverse: (n, n) C^-1, noise included; solved: (n,) C^-1 (y - mean).
        size: (n,) the values themselves, where y is their logarithm.
        groups: (n,) index of the network, which is left out as a whole.
        records: (n,) index of the network under one setting, whose total is judged.
    """
    distinct = np.unique(groups)
    if len(distinct) < MIN_CV_GROUPS:
        return 1.0
    squares = []
    for group in distinct:
        own = np.flatnonzero(groups == group)
        covariance = inv(inverse[np.ix_(own, own)])
        errors = covariance @ solved[own]
        for record in np.unique(records[own]):
            weight = size[own] * (records[own] == record)
            squares.append((weight @ errors) ** 2 / (weight @ covariance @ weight))
    # Rounded, as sums may differ in the last bits with memory alignment.
    spread = max(1.0, float(f"{np.sqrt(np.mean(squares)):.4g}"))
    return spread * widening_of_few(len(distinct), len(distinct))
