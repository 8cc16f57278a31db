"""The policies that a comparison shows side by side."""

from __future__ import annotations

from .controller import DEFAULT_TOLERANCE
from .outcome import ExitCosts, Policy
from .reference import FinalOnly, IdealMapping, Patience, SingleExit
from .risk import RiskControlled
from .shares import ShareThresholds
from .thresholds import MARGIN, MAX_SOFTMAX, Score, ToleranceThresholds


def standard_policies(
    *,
    n_classes: int,
    costs: ExitCosts,
    tolerance: float = DEFAULT_TOLERANCE,
    epsilon: float = 0.02,
    delta: float = 0.1,
) -> tuple[Policy, ...]:
    """Oracle and references first, then the causal policies.

    Args:
        n_classes: of the data set; normalises entropy.
        costs: decides which shares are cheap; see :class:`ShareThresholds`.
        tolerance: of per-exit thresholds and of shares.
        epsilon, delta: risk and level of :class:`RiskControlled`.
    """
    scores = (MAX_SOFTMAX, MARGIN, Score("entropy", n_classes))
    return (
        IdealMapping(),
        FinalOnly(),
        SingleExit(),
        *(ToleranceThresholds(score, tolerance) for score in scores),
        ShareThresholds(costs, tolerance=tolerance),
        Patience(2),
        Patience(3),
        RiskControlled(epsilon, delta),
    )
