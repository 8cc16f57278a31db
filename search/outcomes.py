"""Outcome matrices of backbones that nobody has trained exits on yet.

A predictor says what fraction each exit gets right; which samples those are it does not say,
and without that neither the shares of a controller nor its accuracy follow.  So the dependence
between exits, and between exits and scores, is borrowed from measured backbones, the *donors*:
exits are aligned by relative depth, and per exit the samples with the largest ease (see
:mod:`hadas.surrogates.dependence`) are right, as many as predicted.  The controller's thresholds
are then cross-fitted anew on the donors' scores, so exits that are predicted to be better are
trusted with more samples.

Every backbone depends on itself in its own way.  What is expected of an unmeasured one is had
from a mosaic of donors, in which every image takes one of them, with thresholds fitted to the images of all
of them; how sure that is, from single donors.

Shapes: n samples, p exit positions of the backbone in question, e = p + 1 columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ..datasets.records import AccuracyRecord, OutcomeMatrix
from ..errors import StudyError
from ..measurement.accuracy.policies import DEFAULT_CONTROLLER, CrossFitter, ToleranceThresholds
from ..surrogates.dependence import ExitDependence, normal_scores
from .tables import FloatArray

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

N_DONORS = 5
"""Donors of a mosaic, and those that joint draws take turns with.

More donors even out what is particular to each; those farther off are less like the backbone in question.
``benchmarks/exit_dependence.py`` prints the errors with one, two and three, which is all its data have.
"""

MAX_CACHED = 512
"""Donors, by combination and number of positions, that are kept ready: a combination counts for each of its own."""


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
        self,
        records: Sequence[AccuracyRecord],
        controller: ToleranceThresholds = DEFAULT_CONTROLLER,
        *,
        seed: int = 0,
    ) -> None:
        """Args:
        records: accuracy rows of one split; invalid ones are ignored, the last of a backbone counts,
            and the order of backbones does not.  Rows that lack some exits say their fractions, but are no donors.
        controller: decides who leaves; its score also says how sure a donor's exit is.
        seed: of the eases that are drawn, and of which images take which donor of a mosaic.

        Raises:
            StudyError: no valid row with all exits, or rows of different samples.
        """
        self._matrices: dict[str, OutcomeMatrix] = {}
        complete: dict[str, bool] = {}
        usable = [record for record in records if record.valid and record.calibration is not None]
        first_exit = min((record.first_exit for record in usable), default=0)
        for record in usable:
            assert record.calibration is not None
            self._matrices[record.backbone.arch_id] = record.calibration
            complete[record.backbone.arch_id] = record.first_exit == first_exit
        self._donor_ids = tuple(sorted(arch_id for arch_id, whole in complete.items() if whole))
        self._donors = tuple(self._matrices[arch_id] for arch_id in self._donor_ids)
        if not self._donors:
            raise StudyError("no valid accuracy row: measure the accuracy of at least one backbone first")
        group = self._donors[0].group
        if any(not np.array_equal(matrix.group, group) for matrix in self._matrices.values()):
            raise StudyError("accuracy rows judge different samples; a study needs rows of one split_id")
        self._complete = complete
        self._controller = controller
        self._own: dict[str, Outcomes] = {}
        self._fitted: dict[int, tuple[FloatArray, NDArray[Any]]] = {}
        self._ready: dict[tuple[tuple[int, ...], int], _Borrowed] = {}
        self._profiles: dict[int, FloatArray] = {}
        self._seed = seed
        # Copies of an image share a donor; pairs of images keep all donors in both folds of a cross-fit.
        pair = np.unique(group, return_inverse=True)[1] // 2
        self._turn = np.random.default_rng(seed).permutation(int(pair.max()) + 1)[pair]

    @property
    def n_samples(self) -> int:
        """n."""
        return self._donors[0].n_samples

    @cached_property
    def digest(self) -> str:
        """64 hex digits over all that is measured here, and over what decides how it is borrowed."""
        found = hashlib.sha256(repr((self._seed, self._controller, sorted(self._complete.items()))).encode())
        for arch_id, matrix in sorted(self._matrices.items()):
            found.update(arch_id.encode())
            for field in fields(matrix):
                values = np.ascontiguousarray(getattr(matrix, field.name))
                found.update(f"{field.name} {values.dtype} {values.shape}".encode())
                found.update(values.tobytes())
        return found.hexdigest()

    def fractions(self, arch_id: str) -> FloatArray | None:
        """Measured fractions right of a backbone, the last that of its final classifier; ``None`` if it
        was not measured.  Fewer than e where only the last exits were."""
        matrix = self._matrices.get(arch_id)
        return None if matrix is None else matrix.fractions

    def measured(self, arch_id: str) -> Outcomes | None:
        """Measured outcomes with cross-fitted leave bits, ``None`` if there are none, or not at all exits."""
        if not self._complete.get(arch_id, False):
            return None
        if arch_id not in self._own:
            matrix, controller = self._matrices[arch_id], self._controller
            scores = controller.score.values(matrix)
            fitter = CrossFitter(scores, matrix.group, min_samples=controller.min_samples)
            leaves = fitter.leaves(matrix.correct, controller.tolerance)
            self._own[arch_id] = Outcomes(matrix.correct.T, leaves.T, measured=True)
        return self._own[arch_id]

    def borrowed(self, fractions: FloatArray, *, n_donors: int = N_DONORS) -> Outcomes:
        """Outcomes of an unmeasured backbone with these (e,) predicted fractions right.

        From a mosaic of the nearest donors: image by image another one's.
        """
        return self._borrowed(tuple(sorted(self.nearest_donors(fractions, n_donors))), fractions)

    def borrowed_from(self, donor: int, fractions: FloatArray) -> Outcomes:
        """Outcomes with (e,) fractions right that depend on each other as a given donor's."""
        return self._borrowed((donor,), fractions)

    def _borrowed(self, donors: tuple[int, ...], fractions: FloatArray) -> Outcomes:
        key = (donors, len(fractions) - 1)
        if key not in self._ready:
            if sum(len(known) for known, _ in self._ready) + len(donors) > MAX_CACHED:
                self._ready.clear()
            self._ready[key] = self._prepared(*key)
        correct, leaves = self._ready[key].apply(fractions)
        return Outcomes(correct.T, leaves.T, measured=False)

    def nearest_donors(self, fractions: FloatArray, n: int) -> list[int]:
        """Indices of up to ``n`` donors, which are sorted by ``arch_id``; nearest exit profile (mean absolute
        difference) first."""
        p = len(fractions) - 1
        if p not in self._profiles:
            self._profiles[p] = np.stack(
                [matrix.fractions[aligned_columns(p, matrix.n_exits - 1)] for matrix in self._donors]
            )
        distance = np.abs(self._profiles[p] - fractions).mean(axis=1)
        return [int(i) for i in np.argsort(distance, kind="stable")[:n]]

    def _prepared(self, donors: tuple[int, ...], n_positions: int) -> _Borrowed:
        ease, scores = (
            np.stack(parts)
            for parts in zip(*(self._aligned(donor, n_positions) for donor in donors), strict=True)
        )
        return _Borrowed(ease, scores, self._turn % len(donors), self._donors[0].group, self._controller)

    def _aligned(self, donor: int, n_positions: int) -> tuple[FloatArray, NDArray[Any]]:
        """Eases and scores (n, p + 1) of a donor at p positions."""
        columns = aligned_columns(n_positions, self._donors[donor].n_exits - 1)
        ease, scores = self._dependence(donor)
        return ease[:, columns], scores[:, columns]

    def _dependence(self, donor: int) -> tuple[FloatArray, NDArray[Any]]:
        """Eases and scores of a donor, (n, its own exits), both on scales on which donors compare."""
        if donor not in self._fitted:
            matrix = self._donors[donor]
            scores = np.asarray(self._controller.score.values(matrix), dtype=np.float64)
            # By name: what a backbone says must not depend on which others were measured, or when.
            named = hashlib.sha256(f"{self._seed} {self._donor_ids[donor]}".encode()).digest()
            ease = ExitDependence.fit(matrix.correct, scores, seed=int.from_bytes(named[:8])).ease
            self._fitted[donor] = (ease, _comparable_scores(scores))
        return self._fitted[donor]


class _Borrowed:
    """Eases and scores of D donors aligned to p positions, ready for any fractions.

    Bits are those of a mosaic.  Its thresholds are fitted to all images of all donors: on a mosaic alone,
    whoever happens to take which image would move them.
    """

    def __init__(
        self, ease: FloatArray, scores: NDArray[Any], turn: IntArray, group: NDArray[np.int32],
        controller: ToleranceThresholds,
    ) -> None:  # fmt: skip
        """Args:
        ease, scores: (D, n, e).
        turn: (n,) donor of each image.
        group: (n,) index of the underlying image.
        """
        n_donors, n, e = ease.shape
        self._picked = turn * n + np.arange(n)
        pooled = ease.reshape(-1, e)
        self._ease = np.ascontiguousarray(pooled[self._picked].T)
        self._pooled_ease = self._ease if n_donors == 1 else np.ascontiguousarray(pooled.T)
        self._fitter = CrossFitter(
            scores.reshape(-1, e), np.tile(group, n_donors), min_samples=controller.min_samples
        )
        self._tolerance = controller.tolerance

    def apply(self, fractions: FloatArray) -> tuple[BoolArray, BoolArray]:
        """(n, e) correct and leave bits."""
        fractions = np.clip(fractions, 0.0, 1.0)
        correct = _largest(self._ease, fractions)
        pooled = correct if self._pooled_ease is self._ease else _largest(self._pooled_ease, fractions)
        return correct, self._fitter.leaves(pooled, self._tolerance)[self._picked]


def _largest(ease: FloatArray, fractions: FloatArray) -> BoolArray:
    """(n, e) which n f_j of the columns' eases (e, n) are the largest; of equal ones the first."""
    e, n = ease.shape
    bits = np.zeros((e, n), dtype=bool)
    for row, own, count in zip(bits, ease, np.rint(fractions * n).astype(int), strict=True):
        if count:
            least = np.partition(own, n - count)[n - count]
            row[:] = own >= least
            if (beyond := int(np.count_nonzero(row)) - count) > 0:
                row[np.flatnonzero(own == least)[-beyond:]] = False
    return np.ascontiguousarray(bits.T)


def _comparable_scores(scores: FloatArray) -> NDArray[Any]:
    """Scores (n, e) of one donor by their ranks, on which donors compare; 16-bit codes, if there are enough."""
    if len(scores) > np.iinfo(np.uint16).max // 2:
        return normal_scores(scores)
    return np.asarray(2.0 * rankdata(scores, axis=0), dtype=np.uint16)  # shared ranks end in a half
