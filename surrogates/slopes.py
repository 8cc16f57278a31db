"""Slopes of what else moves a logarithm, at the rows that a Gaussian process was conditioned on.

A baseline's coefficients and the process of what the baseline misses are unsure of the same values, so their doubts
are one joint posterior (universal kriging; Rasmussen & Williams 2006, section 2.7).  With s(x) the slopes of the
log baseline by the coefficients, whose deviations are d ~ N(0, I) before any row was seen, and K, C the process's
covariances:  value(x) - mean(x) = process(x | rows) + (s(x) - k(x, X) C^-1 S) d,  d ~ N(0, (I + S' C^-1 S)^-1).
So where rows were measured the process takes up whatever the coefficients do, and nothing is left of their doubt;
far from all rows it is the roofline's.  And what the rows, with the process among them, say of d is its mean
(I + S' C^-1 S)^-1 S' C^-1 (y - mean(X)): that moves the baseline, and is taken off what the process learns.
"""

from __future__ import annotations

import numpy as np

from .prediction import FloatArray


def at_own_rows(own: FloatArray, x: FloatArray, values: FloatArray) -> FloatArray:
    """Values (u, k) at standardised rows (u, d), looked up among rows (m, d) with values (m, k).

    Raises:
        KeyError: a row of ``own`` is not among ``x``.
    """
    position = {row.tobytes(): i for i, row in enumerate(np.ascontiguousarray(x + 0.0))}
    return values[[position[row.tobytes()] for row in np.ascontiguousarray(own + 0.0)]]
