"""Runtime policies, computed offline from outcome matrices: who leaves where, and who is right.

A :class:`Policy` is fitted on the calibration split for the exits in use and gives a :class:`Rule`,
which says where each sample of any matrix leaves.  The search counts on one of them, the tabulated
controller of :mod:`.controller`; the others show what a different decision would gain.

Imports with numpy alone.
"""

from .controller import (
    DEFAULT_TOLERANCE,
    MIN_SAMPLES,
    CrossFitter,
    ThresholdFitter,
    apply_controller,
    cross_fitted_leaves,
    fit_thresholds,
    ideal_mapping,
    leave_bits,
    reaching,
)
from .lineup import standard_policies
from .outcome import (
    ExitCosts,
    Policy,
    PolicyOutcome,
    Rule,
    expected_cost,
    expected_cost_statistic,
    interval_95,
    outcome_at,
    run_policy,
)
from .reference import FinalOnly, IdealMapping, Patience, SingleExit
from .risk import RiskControlled
from .shares import ShareCurve, ShareThresholds, share_thresholds, target_shares
from .thresholds import DEFAULT_CONTROLLER, MARGIN, MAX_SOFTMAX, Score, ThresholdRule, ToleranceThresholds

__all__ = [
    "DEFAULT_CONTROLLER",
    "DEFAULT_TOLERANCE",
    "MARGIN",
    "MAX_SOFTMAX",
    "MIN_SAMPLES",
    "CrossFitter",
    "ExitCosts",
    "FinalOnly",
    "IdealMapping",
    "Patience",
    "Policy",
    "PolicyOutcome",
    "RiskControlled",
    "Rule",
    "Score",
    "ShareCurve",
    "ShareThresholds",
    "SingleExit",
    "ThresholdFitter",
    "ThresholdRule",
    "ToleranceThresholds",
    "apply_controller",
    "cross_fitted_leaves",
    "expected_cost",
    "expected_cost_statistic",
    "fit_thresholds",
    "ideal_mapping",
    "interval_95",
    "leave_bits",
    "outcome_at",
    "reaching",
    "run_policy",
    "share_thresholds",
    "standard_policies",
    "target_shares",
]
