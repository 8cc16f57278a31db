"""How much wider what was estimated from few rows has to be."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student


def widening_of_few(n_rows: int, freedom: int) -> float:
    """Factor on standard deviations of residuals from a fit that left ``freedom`` of ``n_rows`` squares free.

    sqrt(n / freedom) for the squares that the fit took, and for what is not known of the rest the ratio of
    Student's t to the normal at their 95 % points.  Where no square was left free there is no residual to
    widen: what is said then comes from priors, which are wide as they are.
    """
    if freedom < 1:
        return 1.0
    ratio = np.sqrt(n_rows / freedom) * student.ppf(0.95, freedom) / norm.ppf(0.95)
    return float(f"{ratio:.4g}")
