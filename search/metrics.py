"""Quality of fronts: hypervolume with a frozen reference, and ratio of dominance.

All points are minimised.  Columns marked ``log`` (costs) are compared on a natural-log scale,
so that saving a tenth of the energy counts the same for small and large networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import moocore
import numpy as np

from ..errors import StudyError
from .objectives import Column
from .ranking import front_indices
from .tables import FloatArray

REFERENCE_MARGIN = 1.1
COVERING_MARGIN = 0.1
"""Range of a front by which a reference that is moved out for it lies beyond its nadir."""

_SMALLEST_RANGE = 0.01
"""Stands in for the range of a front of one point: one percentage point, or 1 % of a cost."""


@dataclass(frozen=True)
class HypervolumeReference:
    """The point that hypervolume is measured to: a study freezes one, and weighs candidates to one moved out for them.

    Attributes:
        columns: objective names, in order.
        log: whether each column is on a log scale.
        point: the reference point, on the transformed scale.
    """

    columns: tuple[str, ...]
    log: tuple[bool, ...]
    point: tuple[float, ...]

    @classmethod
    def from_front(
        cls, points: FloatArray, columns: Sequence[Column], margin: float = REFERENCE_MARGIN
    ) -> Self:
        """Freeze the reference: 1.1 x the range of the front beyond its nadir, per objective.

        Where the front has no range, nadir and range of all points stand in.

        Args:
            points: (q, m) points; their non-dominated subset is the front.
            columns: the m objectives.
            margin: another multiple of the range than 1.1; the smaller, the less the ends of a front count.

        Raises:
            StudyError: no points, or a cost on a log scale that is not positive.
        """
        if not len(points):
            raise StudyError("a hypervolume reference needs at least one measured point")
        log = tuple(column.log for column in columns)
        transformed = _transform(points, log)
        front = transformed[front_indices(transformed)]
        # A front of one point (or flat in one objective) has no range to go by: all points have.
        flat = np.ptp(front, axis=0) < _SMALLEST_RANGE
        basis = np.where(flat, transformed.max(axis=0), front.max(axis=0))
        spread = np.where(flat, np.ptp(transformed, axis=0), np.ptp(front, axis=0))
        point = basis + margin * np.maximum(spread, _SMALLEST_RANGE)
        return cls(tuple(column.name for column in columns), log, tuple(float(v) for v in point))

    def covering(self, points: FloatArray) -> Self:
        """The reference moved out, as far as need be for the front of further points to count.

        A reference is frozen from what was measured first, whose front may be narrow: what lies beyond it adds
        nothing, however much it extends the front.  So what is chosen by the volume that it adds is weighed to a
        reference that covers the candidates as well, by a tenth of the range of their front beyond its nadir: enough
        for its ends to count, and little enough for a candidate far from all others not to outweigh them.

        Args:
            points: (q, m) on the natural scale; dominated ones, and none, change nothing.

        Raises:
            StudyError: a cost on a log scale that is not positive.
        """
        if not len(points):
            return self
        columns = [Column(name, log) for name, log in zip(self.columns, self.log, strict=True)]
        front = points[front_indices(_transform(points, self.log))]
        further = type(self).from_front(front, columns, margin=COVERING_MARGIN)
        return replace(self, point=tuple(map(max, self.point, further.point)))

    def transform(self, points: FloatArray) -> FloatArray:
        """(..., m) points on the scale of the reference: log where a column is."""
        return _transform(points, self.log)

    def hypervolume(self, points: FloatArray) -> float:
        """Volume dominated by (q, m) points on the natural scale, up to the reference."""
        return self.transformed_hypervolume(self.transform(points))

    def transformed_hypervolume(self, transformed: FloatArray) -> float:
        """:meth:`hypervolume` of points that are transformed already."""
        inside = transformed[(transformed < np.array(self.point)).all(axis=1)]
        if not len(inside):
            return 0.0
        return float(moocore.hypervolume(np.ascontiguousarray(inside), ref=np.array(self.point)))

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            StudyError: a field is missing.
        """
        try:
            return cls(tuple(document["columns"]), tuple(document["log"]), tuple(document["point"]))
        except KeyError as error:
            raise StudyError(f"stored hypervolume reference lacks the field {error}") from error


def _transform(points: FloatArray, log: tuple[bool, ...]) -> FloatArray:
    values = np.array(points, dtype=np.float64)
    on_log = np.array(log)
    if (values[..., on_log] <= 0).any():
        raise StudyError("a cost that is compared on a log scale must be positive")
    values[..., on_log] = np.log(values[..., on_log])
    return values


def ratio_of_dominance(a: FloatArray, b: FloatArray) -> float:
    """RoD(A, B): share of A's front that dominates at least one point of B's front.

    A point dominates another if it is nowhere worse and somewhere better.  0 if A is empty.

    Args:
        a, b: (q_a, m) and (q_b, m) points; their non-dominated subsets are the fronts.
    """
    front_a, front_b = a[front_indices(a)], b[front_indices(b)]
    if not len(front_a) or not len(front_b):
        return 0.0
    no_worse = np.all(front_a[:, None] <= front_b[None], axis=2)
    better = np.any(front_a[:, None] < front_b[None], axis=2)
    dominates_one = np.any(no_worse & better, axis=1)
    return float(np.mean(dominates_one))


def hypervolume_standard_error(
    points: FloatArray,
    standard_errors: FloatArray,
    reference: HypervolumeReference,
    *,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> float:
    """Standard error of the hypervolume of measured points: parametric bootstrap.

    Every point is redrawn from a normal with its standard error (on the log scale, relative,
    where the column is) and the spread of the hypervolume is taken.  Errors of different
    points are taken as independent.

    Args:
        points, standard_errors: (q, m), natural scale.
    """
    transformed = reference.transform(points)
    scale = np.where(np.array(reference.log), standard_errors / points, standard_errors)
    noise = np.random.default_rng(seed).standard_normal((n_bootstrap, *points.shape))
    volumes = [reference.transformed_hypervolume(transformed + scale * draw) for draw in noise]
    return float(np.std(volumes, ddof=1))


def greedy_subset(points: FloatArray, n: int, reference: HypervolumeReference) -> list[int]:
    """Indices of up to ``n`` points, each adding the most hypervolume to those before it.

    A point that adds nothing is never taken; ties go to the earlier point.
    """
    transformed = reference.transform(points)
    chosen: list[int] = []
    volume = 0.0
    while len(chosen) < min(n, len(points)):
        gains = [
            -1.0 if i in chosen else reference.transformed_hypervolume(transformed[[*chosen, i]]) - volume
            for i in range(len(points))
        ]
        best = int(np.argmax(gains))
        if gains[best] <= 0.0:
            break
        chosen.append(best)
        volume += gains[best]
    return chosen
