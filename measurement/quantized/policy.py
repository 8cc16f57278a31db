"""Who leaves where: one threshold per network, or one per exit, on the largest softmax probability.

A sample leaves at the first exit in use whose confidence reaches the threshold.  The published networks have
one scalar threshold each, between 0.70 and 0.95 (Zniber et al., arXiv:2512.04705); what score it is on, they
do not say.

Shapes: n samples, e exits in use, the final one last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...datasets.quantized_records import QuantizedRecord
from ...datasets.records import OutcomeMatrix, Statistic, cross_fit_folds
from ...errors import ConfigError
from ..accuracy.policies import DEFAULT_TOLERANCE, MIN_SAMPLES, ThresholdFitter
from ..accuracy.policies.outcome import mean_statistic

FloatArray = NDArray[np.float64]
PolicyKind = Literal["network", "exit"]
SplitName = Literal["calibration", "test"]

NETWORK_THRESHOLDS = (*(i / 20 for i in range(4, 20)), 0.97, 0.99)
"""Scalar thresholds that are tried: 0.2, 0.25, ... 0.95, 0.97, 0.99; the published ones lie among them."""


@dataclass(frozen=True)
class QuantizedOutcome:
    """What a network does with a split under thresholds.

    Attributes:
        accuracy: fraction correct where samples leave; standard errors are clustered by image.
        shares: (e,) fraction of samples that leave at each exit; they sum to 1.
        share_errors: (e,) their standard errors.
        branch_accuracy: (e,) fraction correct among the samples that leave there; 0 where nobody does, so
            that ``sum(shares * branch_accuracy)`` is the accuracy.
        branch_counts: (e,) samples that leave at each exit.
        thresholds: (e,) confidence that lets a sample leave; infinity where no sample may, 0 at the end.  On the
            calibration split each half of the images is judged by thresholds of the other half, and these are
            the ones of the whole.
        final_accuracy: fraction correct if every sample runs to the end.
    """

    accuracy: Statistic
    shares: FloatArray
    share_errors: FloatArray
    branch_accuracy: FloatArray
    branch_counts: NDArray[np.int64]
    thresholds: FloatArray
    final_accuracy: Statistic


def exit_policy(
    record: QuantizedRecord, *, kind: PolicyKind = "network", tolerance: float = DEFAULT_TOLERANCE,
    split: SplitName = "calibration",
) -> QuantizedOutcome:  # fmt: skip
    """Thresholds from the calibration split, and what they do.

    Args:
        record: valid.
        kind: ``network``: the lowest threshold of :data:`NETWORK_THRESHOLDS` that loses at most ``tolerance``
            of accuracy against running every sample to the end, or the highest if none does; ``exit``: each
            exit's own, as :func:`~hadas.measurement.accuracy.policies.fit_thresholds` gives it.
        tolerance: accuracy, as a fraction, that leaving early may lose.
        split: ``calibration``: cross-fitted, what a search may look at; ``test``: thresholds of the whole
            calibration split judged on the test split, what reports show.

    Raises:
        ConfigError: an invalid record, an unknown kind or split, or a tolerance that is no fraction.
    """
    matrices = {"calibration": record.calibration, "test": record.test}
    calibration = record.calibration
    if calibration is None or record.test is None:
        raise ConfigError(
            f"{record.network.network_id}: its training failed ({record.reason}), so it has no outcomes"
        )
    if kind not in ("network", "exit") or split not in matrices:
        raise ConfigError(f"kind '{kind}', split '{split}': give network or exit, calibration or test")
    if not 0.0 <= tolerance < 1.0:
        raise ConfigError(f"tolerance = {tolerance}: give a fraction, such as 0.01")
    everything = np.ones(calibration.n_samples, dtype=bool)
    thresholds = _fitted(calibration, everything, kind, tolerance)
    if split == "test":
        return outcome_with(record.test, thresholds)
    second = cross_fit_folds(calibration.group)
    applied = np.empty((calibration.n_samples, calibration.n_exits))
    for fitted, judged in ((~second, second), (second, ~second)):
        # With images of one parity alone there is no other half to fit on.
        source = fitted if fitted.any() else everything
        applied[judged] = _fitted(calibration, source, kind, tolerance)
    return _outcome(calibration, applied, thresholds)


def lowest_threshold(
    confidence: FloatArray, correct: NDArray[np.bool_], at_least: float,
    tried: Sequence[float] = NETWORK_THRESHOLDS,
) -> tuple[FloatArray, bool]:  # fmt: skip
    """The lowest threshold, one for all early exits, at which samples are right often enough.

    Args:
        confidence, correct: (n, e) of the samples it is fitted to.
        at_least: fraction of them that must be right where they leave.
        tried: ascending.

    Returns:
        (e,) thresholds, and whether they are enough; if none of those tried is, the highest of them.
    """
    for threshold in tried:
        rule = np.append(np.full(confidence.shape[1] - 1, threshold), 0.0)
        right = np.take_along_axis(correct, leaves_at(confidence, rule)[:, None], axis=1)
        if right.mean() >= at_least:
            return rule, True
    return rule, False


def leaves_at(confidence: FloatArray, thresholds: FloatArray) -> NDArray[np.int64]:
    """(n,) column where each sample leaves; confidence is (n, e), thresholds are (e,), or (n, e) of each sample."""
    leaves = confidence >= thresholds
    leaves[:, -1] = True
    return np.asarray(np.argmax(leaves, axis=1), dtype=np.int64)


def outcome_with(matrix: OutcomeMatrix, thresholds: FloatArray) -> QuantizedOutcome:
    """What given thresholds (e,) do with the samples of a matrix."""
    return _outcome(matrix, np.broadcast_to(thresholds, matrix.correct.shape), thresholds)


def _outcome(matrix: OutcomeMatrix, applied: FloatArray, thresholds: FloatArray) -> QuantizedOutcome:
    """Args: applied: (n, e) the thresholds that judge each sample."""
    left = leaves_at(np.asarray(matrix.confidence, dtype=np.float64), applied)
    right = np.take_along_axis(matrix.correct, left[:, None], axis=1)[:, 0]
    counts = np.bincount(left, minlength=matrix.n_exits)
    n_right = np.bincount(left, weights=right, minlength=matrix.n_exits)
    chosen = left[:, None] == np.arange(matrix.n_exits)
    statistics = [mean_statistic(chosen[:, i], matrix.group) for i in range(matrix.n_exits)]
    return QuantizedOutcome(
        accuracy=mean_statistic(right, matrix.group),
        shares=counts / matrix.n_samples,
        share_errors=np.array([statistic.standard_error for statistic in statistics]),
        branch_accuracy=n_right / np.maximum(counts, 1),
        branch_counts=counts,
        thresholds=thresholds,
        final_accuracy=mean_statistic(matrix.correct[:, -1], matrix.group),
    )


def _fitted(matrix: OutcomeMatrix, rows: NDArray[np.bool_], kind: PolicyKind, tolerance: float) -> FloatArray:
    """(e,) thresholds from some of the samples."""
    confidence, correct = np.asarray(matrix.confidence[rows], dtype=np.float64), matrix.correct[rows]
    if kind == "exit":
        return ThresholdFitter(confidence, min_samples=min(MIN_SAMPLES, len(correct))).fit(correct, tolerance)
    rule, _ = lowest_threshold(confidence, correct, correct[:, -1].mean() - tolerance - 1e-9)
    return rule
