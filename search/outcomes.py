"""Outcome matrices of backbones that nobody has trained exits on yet.

A predictor says what fraction each exit gets right; which samples those are it does not say,
and without that neither the shares of a controller nor its accuracy follow.  So the matrix
of a measured backbone, the *donor*, is borrowed: exits are aligned by relative depth, and
each column is tilted until it has the predicted fraction of right samples.  Samples turn
wrong in the order of falling doubt (least sure first) and right in the order of how
many measured backbones get them right at that depth.  The controller's thresholds are then
cross-fitted anew on the donor's scores, so exits that are predicted to be better are
trusted with more samples.

Shapes: n samples, p exit positions of the backbone in question, e = p + 1 columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..datasets.records import AccuracyRecord, OutcomeMatrix
from ..errors import StudyError
from ..measurement.accuracy.policies import DEFAULT_CONTROLLER, CrossFitter, ToleranceThresholds
from .tables import FloatArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Outcomes:
    """Bits of one backbone: ``correct`` and ``leaves``, each (e, n); ``measured`` or borrowed."""

    correct: BoolArray
    leaves: BoolArray
    measured: bool


def aligned_columns(n_positions: int, donor_positions: int) -> IntArray:
    """(p + 1,) donor column for each of p exits and the final classifier, by relative depth."""
    relative = np.arange(n_positions) / max(n_positions - 1, 1)
    columns = np.rint(relative * (donor_positions - 1)).astype(np.int64)
    return np.append(columns, donor_positions)


class OutcomeLibrary:
    """Measured outcome matrices, and what they say about other backbones."""

    def __init__(
        self, records: Sequence[AccuracyRecord], controller: ToleranceThresholds = DEFAULT_CONTROLLER
    ) -> None:
        """Args:
        records: accuracy rows of one split; invalid ones are ignored, the last of a backbone counts.
        controller: decides who leaves; its score also says how sure a donor's exit is.

        Raises:
            StudyError: no valid row, or rows of different samples.
        """
        self._matrices: dict[str, OutcomeMatrix] = {
            record.backbone.arch_id: record.calibration
            for record in records
            if record.valid and record.calibration is not None
        }
        if not self._matrices:
            raise StudyError("no valid accuracy row: measure the accuracy of at least one backbone first")
        self._donors = tuple(self._matrices.values())
        group = self._donors[0].group
        if any(not np.array_equal(matrix.group, group) for matrix in self._donors):
            raise StudyError("accuracy rows judge different samples; a study needs rows of one split_id")
        self._controller = controller
        self._own: dict[str, Outcomes] = {}
        self._tilts: dict[tuple[int, int], _Tilt] = {}
        self._easiness: dict[int, FloatArray] = {}
        self._profiles: dict[int, FloatArray] = {}

    @property
    def n_samples(self) -> int:
        """n."""
        return self._donors[0].n_samples

    def fractions(self, arch_id: str) -> FloatArray | None:
        """(e,) measured fractions right of a backbone, ``None`` if it was not measured."""
        matrix = self._matrices.get(arch_id)
        return None if matrix is None else matrix.fractions

    def measured(self, arch_id: str) -> Outcomes | None:
        """Measured outcomes with cross-fitted leave bits, ``None`` if there are none."""
        matrix = self._matrices.get(arch_id)
        if matrix is None:
            return None
        if arch_id not in self._own:
            controller = self._controller
            scores = controller.score.values(matrix)
            fitter = CrossFitter(scores, matrix.group, min_samples=controller.min_samples)
            leaves = fitter.leaves(matrix.correct, controller.tolerance)
            self._own[arch_id] = Outcomes(matrix.correct.T, leaves.T, measured=True)
        return self._own[arch_id]

    def borrowed(self, fractions: FloatArray) -> Outcomes:
        """Outcomes of an unmeasured backbone with these (e,) predicted fractions right."""
        return self.borrowed_from(self.nearest_donors(fractions, 1)[0], fractions)

    def borrowed_from(self, donor: int, fractions: FloatArray) -> Outcomes:
        """Outcomes tilted to (e,) fractions from a given donor."""
        key = (donor, len(fractions) - 1)
        if key not in self._tilts:
            self._tilts[key] = self._tilt(*key)
        correct, leaves = self._tilts[key].apply(fractions)
        return Outcomes(correct.T, leaves.T, measured=False)

    def nearest_donors(self, fractions: FloatArray, n: int) -> list[int]:
        """Indices of up to ``n`` measured backbones, nearest exit profile (mean absolute difference) first."""
        p = len(fractions) - 1
        if p not in self._profiles:
            self._profiles[p] = np.stack(
                [matrix.fractions[aligned_columns(p, matrix.n_exits - 1)] for matrix in self._donors]
            )
        distance = np.abs(self._profiles[p] - fractions).mean(axis=1)
        return [int(i) for i in np.argsort(distance, kind="stable")[:n]]

    def _tilt(self, donor: int, n_positions: int) -> _Tilt:
        if n_positions not in self._easiness:
            self._easiness[n_positions] = np.mean(
                [m.correct[:, aligned_columns(n_positions, m.n_exits - 1)] for m in self._donors], axis=0
            )
        matrix = self._donors[donor]
        columns = aligned_columns(n_positions, matrix.n_exits - 1)
        return _Tilt(
            matrix.correct[:, columns],
            self._controller.score.values(matrix)[:, columns],
            self._easiness[n_positions],
            matrix.group,
            self._controller,
        )


class _Tilt:
    """One donor aligned to p positions, ready to be tilted to any fractions."""

    def __init__(
        self,
        correct: BoolArray,
        scores: FloatArray,
        easiness: FloatArray,
        group: NDArray[np.int32],
        controller: ToleranceThresholds,
    ) -> None:
        self._fitter = CrossFitter(scores, group, min_samples=controller.min_samples)
        self._tolerance = controller.tolerance
        # One order per column serves both directions: right samples by falling score,
        # then wrong ones by falling easiness; the first `fraction * n` of it are right.
        first = np.where(correct, -scores, -easiness)
        second = np.where(correct, -easiness, -scores)
        order = np.lexsort((second, first, ~correct), axis=0)
        self._place = np.empty_like(order)
        np.put_along_axis(self._place, order, np.arange(len(order))[:, None], axis=0)

    def apply(self, fractions: FloatArray) -> tuple[BoolArray, BoolArray]:
        """(n, e) correct and leave bits."""
        n_right = np.rint(np.clip(fractions, 0.0, 1.0) * len(self._place))
        correct = np.asarray(self._place < n_right)
        return correct, self._fitter.leaves(correct, self._tolerance)
