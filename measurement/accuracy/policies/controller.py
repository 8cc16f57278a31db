"""The tabulated controller, which the search counts on, and the oracle beside it.

The *controller* is causal: a sample leaves at the first exit in use whose score, the largest
softmax probability unless told otherwise, reaches that exit's threshold (MSDNet, Huang et al., ICLR 2018).
The *ideal mapping* is an oracle: a sample leaves at the first exit in use that is right; no
controller can know that, so it is only an upper bound.

A threshold is fitted per exit, on its own, whatever other exits are in use.  That costs a
little (an exit behind another one sees harder samples than it was fitted on) and buys much:
who would leave at an exit is then one bit per sample, which a search can tabulate.

Shapes: n samples, P exit positions, e = P + 1 columns (the last is the final classifier).
Imports with numpy alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....datasets.records import OutcomeMatrix, cross_fit_folds
from .outcome import BoolArray, FloatArray, PolicyOutcome, first_allowed, outcome_at

DEFAULT_TOLERANCE = 0.01
MIN_SAMPLES = 20
"""Fewest calibration samples above a threshold: below that, a share of correct ones says little."""


_LARGEST_CODE = np.iinfo(np.uint16).max


def _comparable(confidence: NDArray[Any]) -> NDArray[Any]:
    """Codes as they are, anything else in double precision."""
    return confidence if confidence.dtype == np.uint16 else np.asarray(confidence, dtype=np.float64)


class ThresholdFitter:
    """Fits thresholds for fixed confidences and any number of correctness matrices.

    Sorting by confidence is done once; a search that asks about many hypothetical
    correctness matrices (predicted ones, joint draws) then pays for cumulative sums only.
    """

    def __init__(
        self, confidence: NDArray[np.floating] | NDArray[np.uint16], *, min_samples: int = MIN_SAMPLES
    ) -> None:
        """Args:
        confidence: (n, e) largest softmax probability, or 16-bit codes that order samples alike, which are
            sorted many times faster.
        min_samples: fewest samples above a threshold.
        """
        values = _comparable(confidence)[:, :-1]
        falling = np.uint16(_LARGEST_CODE) - values if values.dtype == np.uint16 else -values
        self._order = np.argsort(falling, axis=0, kind="stable")
        self._sorted = np.take_along_axis(values, self._order, axis=0)
        # A threshold lets all samples of equal confidence through, so only the last of each
        # run of ties is a possible cut.
        self._cut = np.ones_like(self._sorted, dtype=bool)
        self._cut[:-1] = self._sorted[1:] != self._sorted[:-1]
        self._cut[: max(min_samples, 1) - 1] = False

    def fit(self, correct: BoolArray, tolerance: float = DEFAULT_TOLERANCE) -> FloatArray:
        """Thresholds for one (n, e) correctness matrix; see :func:`fit_thresholds`."""
        n, e = correct.shape
        gained = correct[:, :-1].astype(np.int8) - correct[:, -1:].astype(np.int8)
        running = np.cumsum(np.take_along_axis(gained, self._order, axis=0), axis=0, dtype=np.int64)
        count = np.arange(1, n + 1)[:, None]
        allowed = self._cut & (running >= -tolerance * count - 1e-9)
        last = n - 1 - np.argmax(allowed[::-1], axis=0)
        thresholds = np.zeros(e)
        thresholds[:-1] = np.where(allowed.any(axis=0), self._sorted[last, np.arange(e - 1)], np.inf)
        return thresholds


def fit_thresholds(
    matrix: OutcomeMatrix, tolerance: float = DEFAULT_TOLERANCE, *, min_samples: int = MIN_SAMPLES
) -> FloatArray:
    """Confidence that a sample must reach to leave at each exit.

    The threshold of exit i is the smallest confidence c such that among the samples with
    confidence >= c at exit i, that exit is right at least as often as the final classifier
    is on the same samples, minus ``tolerance``.

    Args:
        matrix: outcomes on the calibration split.
        tolerance: accuracy, as a fraction, that may be lost on the samples that leave.
        min_samples: fewest samples that must reach the threshold.

    Returns:
        (e,) thresholds; infinity where no confidence will do; 0 for the final classifier.
    """
    return ThresholdFitter(matrix.confidence, min_samples=min_samples).fit(matrix.correct, tolerance)


def leave_bits(matrix: OutcomeMatrix, thresholds: FloatArray) -> BoolArray:
    """Whether each sample would leave at each exit, if that exit is in use and reached.

    Returns:
        (n, e) bool; the last column is True.
    """
    return reaching(np.asarray(matrix.confidence, dtype=np.float64), thresholds)


def reaching(scores: FloatArray, thresholds: FloatArray) -> BoolArray:
    """(n, e) whether scores (n, e) reach thresholds (e,); True in the last column."""
    bits = scores >= thresholds[None, :]
    bits[:, -1] = True
    return bits


def cross_fitted_leaves(
    matrix: OutcomeMatrix, tolerance: float = DEFAULT_TOLERANCE, *, min_samples: int = MIN_SAMPLES
) -> BoolArray:
    """Leave bits without optimism: each half of the images is judged by thresholds of the other half.

    Returns:
        (n, e) bool; the last column is True.
    """
    return CrossFitter(matrix.confidence, matrix.group, min_samples=min_samples).leaves(
        matrix.correct, tolerance
    )


class CrossFitter:
    """Cross-fitted leave bits for fixed confidences and any number of correctness matrices."""

    def __init__(
        self,
        confidence: NDArray[np.floating] | NDArray[np.uint16],
        group: NDArray[np.int32],
        *,
        min_samples: int = MIN_SAMPLES,
    ) -> None:
        """Args:
        confidence: (n, e) largest softmax probability, or 16-bit codes (see :class:`ThresholdFitter`).
        group: (n,) index of the underlying image.
        min_samples: fewest samples, in one half, above a threshold.
        """
        self._confidence = _comparable(confidence)
        second = cross_fit_folds(group)
        self._halves = (np.flatnonzero(~second), np.flatnonzero(second))
        self._fitters = tuple(
            ThresholdFitter(self._confidence[half], min_samples=min_samples) if len(half) else None
            for half in self._halves
        )

    def leaves(self, correct: BoolArray, tolerance: float = DEFAULT_TOLERANCE) -> BoolArray:
        """(n, e) leave bits for one (n, e) correctness matrix; the last column is True."""
        bits = np.zeros(correct.shape, dtype=bool)
        for fitted, judged in ((0, 1), (1, 0)):
            fitter, rows = self._fitters[fitted], self._halves[judged]
            if fitter is not None and len(rows):
                thresholds = fitter.fit(correct[self._halves[fitted]], tolerance)
                bits[rows] = self._confidence[rows] >= thresholds
        bits[:, -1] = True
        return bits


def apply_controller(correct: BoolArray, leaves: BoolArray, mask: BoolArray) -> PolicyOutcome:
    """Run the controller: each sample leaves at the first exit in use that lets it.

    Args:
        correct: (n, e) whether each column classifies each sample correctly.
        leaves: (n, e) whether a sample may leave there; the last column must be True.
        mask: (P,) exits in use.
    """
    return outcome_at(correct, first_allowed(leaves, mask))


def ideal_mapping(correct: BoolArray, mask: BoolArray) -> PolicyOutcome:
    """The oracle: each sample leaves at the first exit in use that is right, else at the end.

    An upper bound on accuracy for these exits that no causal controller can be built for.

    Args:
        correct: (n, e) whether each column classifies each sample correctly.
        mask: (P,) exits in use.
    """
    leaves = correct.copy()
    leaves[:, -1] = True
    return apply_controller(correct, leaves, mask)
