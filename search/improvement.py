"""Hypervolume improvement over many draws at once, exactly.

A set of measured points dominates a region below the reference point; what a further point adds is
the part of its own region that nobody dominates yet.  Here every joint draw has a set of its own
(the measured points, and what chosen and pending points came to in that draw), and the gains of
many points are computed for all draws in a few array operations:

* two objectives: the dominated region is a staircase; a gain is a difference of its running
  integral, found by two binary searches (:class:`Staircases`);
* more: the region that nobody dominates is kept as disjoint boxes; a gain is the volume that the
  point's region shares with them (:class:`Boxes`; box decomposition as in Lacour, Klamroth and
  Fonseca, Computers & Operations Research 2017, with plain cuts for points that come later).

Everything is minimised and on the scale of the reference (costs as logs).
Shapes: s draws, k points, q measured points, m objectives, b boxes.
"""

from __future__ import annotations

from copy import copy
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..spaces import IntArray
from .ranking import front_indices
from .tables import FloatArray

_BLOCK_ELEMENTS = 2_000_000
"""Boxes x points that are weighed at once: bounds the memory of temporary arrays (16 MB each)."""


class DrawnSets(Protocol):
    """One set of points per draw, and what further points would add to each."""

    def gains(self, points: FloatArray) -> FloatArray:
        """(s, k) hypervolume that each point (s, k, m) would add to the set of its draw."""
        ...

    def add(self, points: FloatArray, counts: NDArray[np.bool_] | None = None) -> None:
        """Put one point (s, m) into the set of each draw, or of those where ``counts`` (s,) holds."""
        ...

    def copy(self) -> Self:
        """A copy that can be added to without changing this one."""
        ...


def drawn_sets(measured: FloatArray, n_draws: int, reference: FloatArray) -> DrawnSets:
    """The same measured points (q, m) in every draw, below the reference point (m,)."""
    front = without_dominated(measured, reference)
    kind = Staircases if len(reference) == 2 else Boxes
    return kind(front, n_draws, reference)


def without_dominated(points: FloatArray, reference: FloatArray) -> FloatArray:
    """The points (q, m) that dominate volume below the reference and that no other dominates."""
    inside = points[(points < reference).all(axis=1)]
    return inside[front_indices(inside)] if len(inside) else inside


class Staircases:
    """Sets of points with two objectives: their fronts, sorted by the first objective."""

    def __init__(self, front: FloatArray, n_draws: int, reference: FloatArray) -> None:
        self._reference = reference
        order = np.argsort(front[:, 0], kind="stable")
        self._stairs = [_Staircase(front[order, 0], front[order, 1], reference)] * n_draws

    def gains(self, points: FloatArray) -> FloatArray:
        """See :class:`DrawnSets`."""
        return np.stack([stair.gains(*own.T) for stair, own in zip(self._stairs, points, strict=True)])

    def add(self, points: FloatArray, counts: NDArray[np.bool_] | None = None) -> None:
        """See :class:`DrawnSets`."""
        for i, (x, y) in enumerate(points.tolist()):
            if counts is None or counts[i]:
                self._stairs[i] = self._stairs[i].with_point(x, y)

    def copy(self) -> Self:
        """See :class:`DrawnSets`."""
        other = copy(self)
        other._stairs = list(self._stairs)
        return other


class _Staircase:
    """The front of one draw: x ascends, y descends; immutable."""

    def __init__(self, x: FloatArray, y: FloatArray, reference: FloatArray) -> None:
        self._x, self._y, self._reference = x, y, reference
        self._minus_y = -y
        self._edges = np.append(x, reference[0])
        # Integral of the stairs from the first edge to each edge.
        self._integral = np.concatenate([[0.0], np.cumsum(np.diff(self._edges) * y)])

    def gains(self, x: FloatArray, y: FloatArray) -> FloatArray:
        """(k,) areas that points would add."""
        # Stairs at and right of `end` are as low as the point; between it and x they are higher.
        end = np.searchsorted(self._minus_y, -y, side="left")
        n_left = np.searchsorted(self._x, x, side="right")
        step = np.maximum(n_left - 1, 0)
        heights = np.append(self._reference[1], self._y)[n_left]
        until_x = np.where(n_left > 0, self._integral[step], 0.0) + (x - self._edges[step]) * heights
        width = self._edges[end] - x
        area = self._integral[end] - until_x - y * width
        counts = (width > 0) & (y < self._reference[1])
        return np.where(counts, np.maximum(area, 0.0), 0.0)

    def with_point(self, x: float, y: float) -> _Staircase:
        """The staircase with one point more; itself if that adds nothing."""
        if x >= self._reference[0] or y >= self._reference[1] or ((self._x <= x) & (self._y <= y)).any():
            return self
        kept = (self._x < x) | (self._y < y)
        at = int(np.searchsorted(self._x[kept], x))
        return _Staircase(np.insert(self._x[kept], at, x), np.insert(self._y[kept], at, y), self._reference)


class Boxes:
    """Sets of points with any number of objectives: disjoint boxes over what they do not dominate.

    A point cuts from every box the corner that it dominates; the rest of the box is at most m
    boxes.  Points in order of their last objective leave few boxes: with three objectives about 5
    per point of a front of 50.
    """

    def __init__(self, front: FloatArray, n_draws: int, reference: FloatArray) -> None:
        m = len(reference)
        lower, upper = np.full((1, m), -np.inf), reference[None].astype(np.float64)
        for point in front[np.argsort(front[:, -1], kind="stable")]:
            lower, upper, _ = _cut(lower, upper, np.broadcast_to(point, lower.shape), np.zeros(len(lower)))
        self._n_draws = n_draws
        self._lower, self._upper = np.tile(lower, (n_draws, 1)), np.tile(upper, (n_draws, 1))
        self._owner: IntArray = np.repeat(np.arange(n_draws), len(lower))

    def gains(self, points: FloatArray) -> FloatArray:
        """See :class:`DrawnSets`."""
        block = max(1, _BLOCK_ELEMENTS // max(1, len(self._owner)))
        n = points.shape[1]
        parts = [self._gains(points[:, start : start + block]) for start in range(0, n, block)]
        return np.concatenate(parts, axis=1) if parts else np.zeros((self._n_draws, 0))

    def _gains(self, points: FloatArray) -> FloatArray:
        # (k, b), so that the sum over boxes of one point does not depend on which others are asked.
        volume = np.ones((points.shape[1], len(self._owner)))
        for j in range(points.shape[2]):
            edge = np.take(np.ascontiguousarray(points[:, :, j].T), self._owner, axis=1)
            np.maximum(edge, self._lower[:, j], out=edge)
            np.subtract(self._upper[:, j], edge, out=edge)
            np.maximum(edge, 0.0, out=edge)
            volume *= edge
        starts = np.searchsorted(self._owner, np.arange(self._n_draws))
        filled = np.append(starts[1:], len(self._owner)) > starts
        gains = np.zeros((self._n_draws, points.shape[1]))
        if filled.any():
            gains[filled] = np.add.reduceat(volume, starts[filled], axis=1).T
        return gains

    def add(self, points: FloatArray, counts: NDArray[np.bool_] | None = None) -> None:
        """See :class:`DrawnSets`."""
        if counts is not None:
            points = np.where(counts[:, None], points, np.inf)
        lower, upper, owner = _cut(self._lower, self._upper, points[self._owner], self._owner)
        order = np.argsort(owner, kind="stable")
        self._lower, self._upper, self._owner = lower[order], upper[order], owner[order]

    def copy(self) -> Self:
        """See :class:`DrawnSets`; boxes are replaced, never changed."""
        return copy(self)


def _cut(
    lower: FloatArray, upper: FloatArray, points: FloatArray, owner: NDArray[np.generic]
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Boxes (b, m) without what their points (b, m) dominate: those not hit, then the pieces of the others."""
    hit = (points < upper).all(axis=1)
    lows, highs, owners = [lower[~hit]], [upper[~hit]], [owner[~hit]]
    low, high, point, own = lower[hit].copy(), upper[hit], points[hit], owner[hit]
    for j in range(lower.shape[1]):
        # The piece below the point in objective j, and not below it in those before j.
        some = low[:, j] < point[:, j]
        piece_high = high[some].copy()
        piece_high[:, j] = point[some, j]
        lows.append(low[some].copy())
        highs.append(piece_high)
        owners.append(own[some])
        low[:, j] = np.maximum(low[:, j], point[:, j])
    return np.concatenate(lows), np.concatenate(highs), np.concatenate(owners).astype(np.int64)
