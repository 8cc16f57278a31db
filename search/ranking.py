"""Non-dominated ranks, crowding and fronts on arrays of points to be minimised."""

from __future__ import annotations

import moocore
import numpy as np
from numpy.typing import NDArray

from .tables import FloatArray

IntArray = NDArray[np.int64]


def pareto_ranks(points: FloatArray) -> IntArray:
    """(q,) non-domination rank of each of (q, m) points, 0 = best; equal points share a rank."""
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    return np.asarray(moocore.pareto_rank(np.ascontiguousarray(points)), dtype=np.int64)


def front_indices(points: FloatArray) -> IntArray:
    """Indices, ascending, of the non-dominated points; of equal points only the first."""
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(moocore.is_nondominated(np.ascontiguousarray(points))).astype(np.int64)


def crowding_distances(points: FloatArray, ranks: IntArray) -> FloatArray:
    """(q,) crowding distance within each rank; infinite at its extremes (Deb et al., 2002)."""
    distance = np.zeros(len(points))
    for rank in np.unique(ranks):
        rows = np.flatnonzero(ranks == rank)
        for column in points[rows].T:
            order = np.argsort(column, kind="stable")
            spread = column[order[-1]] - column[order[0]]
            distance[rows[order[[0, -1]]]] = np.inf
            if spread > 0 and len(rows) > 2:
                distance[rows[order[1:-1]]] += (column[order[2:]] - column[order[:-2]]) / spread
    return distance


def best_first(points: FloatArray) -> IntArray:
    """(q,) indices by rank, then by falling crowding distance, then by position."""
    ranks = pareto_ranks(points)
    return np.lexsort((-crowding_distances(points, ranks), ranks)).astype(np.int64)
